//! How many of something come from one address at once, so that none takes all there is.
//!
//! Must not know: what is counted. Limits: as many addresses are known as have something now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// What each address has.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// Returns places, of which each address may have `most` at once.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Takes one for `address`; `None` where it has as many as it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        (*count < self.most).then(|| {
            *count += 1;
            Place { places: self.clone(), address }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_more_than_it_may_and_leaves_the_others_theirs() {
        let places = Places::new(2);
        let [one, same, other] = ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let held = [places.take(one), places.take(same)];
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(one).is_none() && places.take(same).is_none());
        assert!(places.take(other).is_some());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
        assert!(places.take(one).is_some());
    }
}
