//! What may not be written, and what to write instead.

use crate::tidy::Finding;
use crate::tidy::source::Source;

/// One thing that may not be written.
struct Ban {
    /// The words, as code; comments and literals do not count.
    words: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
    /// The one file that may, if any.
    except: Option<&'static str>,
    /// Whether only test code is meant.
    tests_only: bool,
    /// The only folders in which it is meant, test code excluded; none: everywhere.
    programs_below: &'static [&'static str],
}

/// What ships.
const PROGRAMS: &[&str] =
    &["agent/src/", "backends/src/", "cli/src/", "crds/src/", "delivery/src/", "operator/src/", "tokens/src/"];

const BANS: &[Ban] = &[
    Ban {
        words: &["tokio::spawn(", "task::spawn(", "spawn_local("],
        instead: "a detached task: give it an owner (delivery::supervisor)",
        except: Some("delivery/src/supervisor.rs"),
        tests_only: false,
        programs_below: &[],
    },
    Ban {
        words: &["thread::spawn("],
        instead: "a detached thread: join it in a scope, or use the runtime's by `spawn_blocking`",
        except: None,
        tests_only: false,
        programs_below: PROGRAMS,
    },
    Ban {
        words: &["unbounded_channel", "unbounded(", "UnboundedSender", "UnboundedReceiver"],
        instead: "an unbounded queue: give it a named bound",
        except: None,
        tests_only: false,
        programs_below: &[],
    },
    Ban {
        words: &[
            "Client::builder(",
            "Client::new(",
            "ClientBuilder::new(",
            "Client::default(",
            "ClientBuilder::default(",
            "reqwest::get(",
            "TcpStream",
            "UdpSocket",
        ],
        instead: "a connection past the rules for destinations: go by `HttpClient`",
        except: Some("backends/src/http_client.rs"),
        tests_only: false,
        programs_below: &["backends/src/"],
    },
    Ban {
        words: &["lookup_host(", "to_socket_addrs("],
        instead: "a look-up past the rules for destinations: go by `HttpClient`",
        except: Some("backends/src/destinations/resolve.rs"),
        tests_only: false,
        programs_below: &["backends/src/"],
    },
    Ban {
        words: &["todo!", "unimplemented!"],
        instead: "unfinished: finish it or leave it out",
        except: None,
        tests_only: false,
        programs_below: &[],
    },
    Ban {
        words: &["#[ignore", "#[should_panic]"],
        instead: "a test that may be skipped, or that any panic satisfies: say what is expected",
        except: None,
        tests_only: false,
        programs_below: &[],
    },
    Ban {
        words: &["#[allow", "#![allow"],
        instead: "write `#[expect(…, reason = \"…\")]`: it fails when it is needed no longer",
        except: None,
        tests_only: false,
        programs_below: &[],
    },
    Ban {
        words: &["sleep(", "sleep_until("],
        instead: "a test that sleeps: wait for the event it waits for, or pause the clock",
        except: None,
        tests_only: true,
        programs_below: &[],
    },
];

/// Checks one file.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for ban in BANS.iter().filter(|ban| ban.except != Some(source.path.as_str())) {
        for word in ban.words {
            let is_meant = |at: &usize| match ban.programs_below {
                [_, ..] => {
                    ban.programs_below.iter().any(|folder| source.path.starts_with(folder)) && !source.in_test(*at)
                }
                [] => !ban.tests_only || source.in_test(*at) && !source.clock_is_paused,
            };
            for at in source.words(word).filter(is_meant) {
                let text = format!("`{}`: {}", word.trim_end_matches('('), ban.instead);
                findings.push(Finding::new(&source.path, source.line_of(at), text));
            }
        }
    }
}
