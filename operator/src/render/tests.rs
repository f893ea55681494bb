//! The rules of rendering, each by a world of its own.

use super::*;
