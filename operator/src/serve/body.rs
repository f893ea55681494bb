//! The body of a request, read whole within a bound, a time, and the room that there is for all of them.
//!
//! # Guarantees
//! - Memory of bodies is bounded whatever comes: a body takes its room as it grows, not as it announces itself, and gives it back
//!   when it is dropped.
//! - One address takes no more than its own share of that room.
//! - Nobody waits for room: who finds none is told to come again.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::doorman::Place;
use super::problem::Problem;

/// Longest piece of an error about a body that is told.
pub(crate) const ERROR_CHARS_MAX: usize = 200;

/// The room for the bodies that are in memory at a time. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    room: Arc<Semaphore>,
}

/// A body, and the room it takes.
#[derive(Debug)]
pub(crate) struct Whole {
    bytes: Vec<u8>,
    rooms: Vec<Arc<Semaphore>>,
    taken: Vec<OwnedSemaphorePermit>,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Whole {
    /// Adds to it, where there is room in memory for what it then takes.
    fn grow(&mut self, chunk: &[u8], bytes_max: usize) -> Result<(), Problem> {
        let (length, capacity) = (self.bytes.len() + chunk.len(), self.bytes.capacity());
        if length > capacity {
            let wanted = length.max(capacity * 2).min(bytes_max);
            self.take(wanted - capacity)?;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let none = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-room", "too many bodies at a time").retry();
        let count = u32::try_from(bytes).map_err(|_| none())?;
        let taken: Result<Vec<_>, _> =
            self.rooms.iter().map(|room| Arc::clone(room).try_acquire_many_owned(count)).collect();
        self.taken.extend(taken.map_err(|_| none())?);
        Ok(())
    }
}

impl Bodies {
    /// Returns room for so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes_max)) }
    }

    /// Returns how many bytes there is room for now.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.room.available_permits()
    }

    /// Returns the body of a request, of at most `bytes_max`.
    pub(crate) async fn read(&self, request: Request, bytes_max: usize, time: Duration) -> Result<Whole, Problem> {
        let too_large = || {
            let detail = format!("a body has at most {bytes_max} bytes here");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail).closing()
        };
        let headers = request.headers();
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            let what = "a body is not compressed here";
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", what);
            return Err(problem.with(ACCEPT_ENCODING, "identity"));
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large());
        }
        let of_address = request.extensions().get::<Place>().map(|place| Arc::clone(place.room()));
        let rooms = [Some(Arc::clone(&self.room)), of_address].into_iter().flatten().collect();
        let mut chunks = request.into_body().into_data_stream();
        let whole = async {
            let mut body = Whole { bytes: Vec::new(), rooms, taken: Vec::new() };
            while let Some(chunk) = chunks.next().await {
                let ended_early = |_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body ended early").closing();
                let chunk = chunk.map_err(ended_early)?;
                if body.len() + chunk.len() > bytes_max {
                    return Err(too_large());
                }
                body.grow(&chunk, bytes_max)?;
            }
            Ok(body)
        };
        timeout(time, whole).await.unwrap_or_else(|_| {
            let detail = format!("the body did not come within {} seconds", time.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", detail).closing())
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::future::join_all;
    use futures_util::stream::{iter, pending};
    use futures_util::{FutureExt, StreamExt};

    use super::super::doorman::Doorman;
    use super::super::stats::Connections;
    use super::*;

    const BODY_BYTES_MAX: usize = 1000;

    /// Returns a request of which so many bytes come, and then nothing more.
    fn half_sent(bytes: usize, place: Option<&Place>) -> Request {
        let sent = iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]).chain(pending());
        let mut request = Request::post("/").body(Body::from_stream(sent)).unwrap();
        if let Some(place) = place.cloned() {
            request.extensions_mut().insert(place);
        }
        request
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_half_sent_take_no_more_than_the_room_there_is_and_give_it_back() {
        let bodies = Bodies::new(10 * BODY_BYTES_MAX);
        let read = |_| bodies.read(half_sent(BODY_BYTES_MAX / 2, None), BODY_BYTES_MAX, Duration::from_secs(10));
        let mut many: Vec<_> = (0..50).map(|number| Box::pin(read(number))).collect();
        let told = many.iter_mut().filter_map(FutureExt::now_or_never).map(|body| body.unwrap_err());
        let told: Vec<_> = told.map(|problem| (problem.status.as_u16(), problem.reason)).collect();
        assert_eq!((told.len(), told[0], bodies.free()), (30, (503, "no-room"), 0));
        many.truncate(20);
        let ends = join_all(many).await.into_iter().map(|body| body.unwrap_err().reason);
        assert_eq!(ends.collect::<Vec<_>>(), ["body"; 20], "they do not come");
        assert_eq!(bodies.free(), 10 * BODY_BYTES_MAX);
        let whole = Request::post("/").body(Body::from("x")).unwrap();
        let whole = bodies.read(whole, BODY_BYTES_MAX, Duration::from_secs(10)).await.unwrap();
        assert_eq!((&*whole, bodies.free()), (&b"x"[..], 10 * BODY_BYTES_MAX - 1));
        drop(whole);
        assert_eq!(bodies.free(), 10 * BODY_BYTES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_does_not_take_the_room_of_others() {
        let (bodies, time) = (Bodies::new(10 * BODY_BYTES_MAX), Duration::from_secs(10));
        let doorman = Doorman::new(9, &Connections::default()).with_at_most(9, 2 * BODY_BYTES_MAX);
        let of = |address: [u8; 4]| doorman.place(address.into()).unwrap();
        let (one, again, other) = (of([10, 0, 0, 1]), of([10, 0, 0, 1]), of([10, 0, 0, 2]));
        let mut first = Box::pin(bodies.read(half_sent(900, Some(&one)), BODY_BYTES_MAX, time));
        let mut second = Box::pin(bodies.read(half_sent(900, Some(&again)), BODY_BYTES_MAX, time));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let third = bodies.read(half_sent(900, Some(&one)), BODY_BYTES_MAX, time).now_or_never();
        assert_eq!(third.unwrap().unwrap_err().reason, "no-room");
        assert_eq!(bodies.free(), 10 * BODY_BYTES_MAX - 1800, "what was refused took nothing");
        let elsewhere = bodies.read(half_sent(900, Some(&other)), BODY_BYTES_MAX, time).now_or_never();
        assert!(elsewhere.is_none(), "another address has its own");
        drop((first, second));
        assert_eq!(bodies.free(), 10 * BODY_BYTES_MAX);
    }
}
