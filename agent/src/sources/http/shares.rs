//! What one sender may have of the door, so that none takes it from the others.
//!
//! A connection counts for the address that it comes from until a token on it was taken, then for the pod of that token; one
//! that goes on without a token counts for its address again.
//!
//! # Guarantees
//! - Nobody has more than [`SENDER_CONNECTIONS_MAX`] connections, [`SENDER_BODIES_BYTES_MAX`] bytes of bodies in memory, and
//!   [`SENDER_REQUESTS_AT_ONCE`] requests before it must keep to one in [`SENDER_REQUEST_EVERY`]; a new connection counts as a
//!   request. A request counts before its token is looked at, so that bad tokens are bounded, too.
//! - What is used up by one sender is used up for it alone.
//!
//! # What it must not know
//! Tokens, and who a pod is: it is told the key of the sender.
//!
//! # Limits
//! [`SENDERS_MAX`] senders are told apart, each below 200 bytes; where more come within [`SENDER_REQUESTS_AT_ONCE`] requests'
//! time, the newest have no place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::limits::{
    Limit, SENDER_BODIES_BYTES_MAX, SENDER_CONNECTIONS_MAX, SENDER_REQUEST_EVERY, SENDER_REQUESTS_AT_ONCE, SENDERS_MAX,
};

/// Who has a share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// Whoever comes from there.
    Address(IpAddr),
    /// The pod of this uid.
    Pod(Bytes),
}

/// The shares of all senders.
#[derive(Debug, Default)]
pub(super) struct Shares {
    known: Mutex<HashMap<Who, Share>>,
}

#[derive(Debug)]
struct Share {
    connections: usize,
    /// Until when its requests are paid for, at one in [`SENDER_REQUEST_EVERY`].
    paid: Instant,
    bodies: Arc<Semaphore>,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    shares: Arc<Shares>,
    address: IpAddr,
    who: Mutex<Who>,
}

impl Shares {
    /// Gives a place to a connection from `address`.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr) -> Result<Place, Limit> {
        let who = Who::Address(address);
        self.take(&who, Instant::now())?;
        Ok(Place { shares: self.clone(), address, who: Mutex::new(who) })
    }

    /// Takes a request and a connection of the share of `who`, or neither.
    fn take(&self, who: &Who, now: Instant) -> Result<(), Limit> {
        self.with(|known| {
            if !known.contains_key(who) {
                make_room(known, now)?;
            }
            let share = known.entry(who.clone()).or_insert_with(|| Share::new(now));
            if share.connections >= SENDER_CONNECTIONS_MAX {
                return Err(Limit::SenderConnections);
            }
            share.request(now)?;
            share.connections += 1;
            Ok(())
        })
    }

    fn give_back(&self, who: &Who) {
        self.with(|known| {
            if let Some(share) = known.get_mut(who) {
                share.connections = share.connections.saturating_sub(1);
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Who, Share>) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forgets who has nothing, where as many are known as may be.
fn make_room(known: &mut HashMap<Who, Share>, now: Instant) -> Result<(), Limit> {
    if known.len() >= SENDERS_MAX {
        known.retain(|_, share| share.connections > 0 || share.paid > now);
    }
    if known.len() >= SENDERS_MAX { Err(Limit::SenderConnections) } else { Ok(()) }
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { connections: 0, paid: now, bodies: Arc::new(Semaphore::new(SENDER_BODIES_BYTES_MAX)) }
    }

    fn request(&mut self, now: Instant) -> Result<(), Limit> {
        let paid = self.paid.max(now);
        if paid.duration_since(now) >= SENDER_REQUEST_EVERY * SENDER_REQUESTS_AT_ONCE {
            return Err(Limit::SenderRequests);
        }
        self.paid = paid + SENDER_REQUEST_EVERY;
        Ok(())
    }
}

impl Place {
    /// Counts a request for whom the connection counts for.
    pub(super) fn request(&self) -> Result<(), Limit> {
        let who = self.who.lock().unwrap_or_else(PoisonError::into_inner);
        self.shares.with(|known| known.get_mut(&who).map_or(Ok(()), |share| share.request(Instant::now())))
    }

    /// Lets the connection count for the pod with this key, or for its address. Returns what its bodies may take.
    pub(super) fn count_for(&self, pod: Option<&Bytes>) -> Result<Arc<Semaphore>, Limit> {
        let whose = pod.map_or(Who::Address(self.address), |key| Who::Pod(key.clone()));
        let mut who = self.who.lock().unwrap_or_else(PoisonError::into_inner);
        if *who != whose {
            self.shares.take(&whose, Instant::now())?;
            self.shares.give_back(&who);
            *who = whose;
        }
        // Who has a connection is known.
        let bodies = self.shares.with(|known| known.get(&who).map(|share| share.bodies.clone()));
        bodies.ok_or(Limit::SenderConnections)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let who = self.who.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shares.give_back(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn connections(shares: &Shares, who: &Who) -> usize {
        shares.with(|known| known.get(who).map_or(0, |share| share.connections))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_counts_for_its_address_and_then_for_its_pod() {
        let shares = Arc::<Shares>::default();
        let key = Bytes::from_static(b"u1");
        let places: Vec<_> = (0..SENDER_CONNECTIONS_MAX).map(|_| shares.connect(address(1)).unwrap()).collect();
        assert_eq!(shares.connect(address(1)).unwrap_err(), Limit::SenderConnections);
        assert!(shares.connect(address(2)).is_ok(), "another one has its own");
        for place in &places {
            place.count_for(Some(&key)).unwrap();
        }
        assert_eq!(connections(&shares, &Who::Address(address(1))), 0);
        let more = shares.connect(address(1)).unwrap();
        assert_eq!(more.count_for(Some(&key)).unwrap_err(), Limit::SenderConnections);
        assert_eq!(connections(&shares, &Who::Address(address(1))), 1, "it counts as before");
        more.count_for(Some(&Bytes::from_static(b"u2"))).unwrap();
        places[0].count_for(None).unwrap();
        assert_eq!(connections(&shares, &Who::Pod(key.clone())), SENDER_CONNECTIONS_MAX - 1);
        drop(places);
        assert_eq!(connections(&shares, &Who::Pod(key)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_rate_are_those_of_one_sender() {
        let shares = Arc::<Shares>::default();
        let (one, other) = (shares.connect(address(1)).unwrap(), shares.connect(address(2)).unwrap());
        for _ in 1..SENDER_REQUESTS_AT_ONCE {
            one.request().unwrap();
        }
        assert_eq!(one.request(), Err(Limit::SenderRequests));
        assert_eq!(shares.connect(address(1)).unwrap_err(), Limit::SenderRequests, "nor by another connection");
        other.request().unwrap();
        tokio::time::advance(SENDER_REQUEST_EVERY).await;
        one.request().unwrap();
        assert_eq!(one.request(), Err(Limit::SenderRequests));
        // To change whom it counts for costs a request of that one.
        let pod = Bytes::from_static(b"u1");
        let switched = (0..).take_while(|_| other.count_for(Some(&pod)).is_ok() && other.count_for(None).is_ok());
        assert!(switched.count() < SENDER_REQUESTS_AT_ONCE as usize);
        // To come again does not begin anew.
        drop(one);
        assert_eq!(shares.connect(address(1)).unwrap_err(), Limit::SenderRequests);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_is_forgotten_when_others_come() {
        let shares = Arc::<Shares>::default();
        let of = |number: usize| IpAddr::from((number as u128 | 1 << 100).to_be_bytes());
        let kept = shares.connect(of(0)).unwrap();
        for number in 1..SENDERS_MAX {
            drop(shares.connect(of(number)).unwrap());
        }
        assert_eq!(shares.connect(of(SENDERS_MAX)).unwrap_err(), Limit::SenderConnections);
        tokio::time::advance(Duration::from_secs(1)).await;
        let _new = shares.connect(of(SENDERS_MAX)).unwrap();
        assert_eq!(shares.with(|known| known.len()), 2);
        drop(kept);
    }
}
