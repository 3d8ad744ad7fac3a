//! The host's side of resource handles: numbers that a plugin holds, and what they stand for.
//!
//! Numbers are never used twice in the life of an instance, so a handle that a warm instance kept from an earlier call
//! finds nothing rather than something of this call.
//!
//! Bounded by the number given at construction. On failure: an error that the plugin gets as its answer.

use mainstay_base::{Error, Result};
use wasmtime::component::Resource;

/// See the module. `T` is what the handles stand for.
pub(crate) struct Handles<T> {
    what: &'static str,
    most: usize,
    next: u32,
    live: Vec<(u32, T)>,
}

impl<T> Handles<T> {
    pub(crate) const fn new(what: &'static str, most: usize) -> Handles<T> {
        Handles { what, most, next: 0, live: Vec::new() }
    }

    /// Go on counting where an earlier call's handles stopped.
    pub(crate) fn continue_from(&mut self, before: &Handles<T>) {
        self.next = before.next;
    }

    pub(crate) fn add<R>(&mut self, value: T) -> Result<Resource<R>> {
        if self.live.len() >= self.most {
            return Err(Error::invalid(format!(
                "a call may hold {} {}s at a time; drop or finish one before you make another",
                self.most, self.what
            )));
        }
        let number = self.next;
        self.next =
            number.checked_add(1).ok_or_else(|| Error::exhausted(format!("no {} numbers are left", self.what)))?;
        self.live.push((number, value));
        Ok(Resource::new_own(number))
    }

    fn place(&self, number: u32) -> Result<usize> {
        // Numbers only grow, so the list is in order.
        self.live.binary_search_by_key(&number, |(live, _)| *live).map_err(|_| {
            Error::invalid(format!(
                "this {} belongs to an earlier call or was used up; handles die with their call",
                self.what
            ))
        })
    }

    pub(crate) fn get<R>(&mut self, handle: &Resource<R>) -> Result<&mut T> {
        let place = self.place(handle.rep())?;
        Ok(&mut self.live[place].1)
    }

    pub(crate) fn take<R>(&mut self, handle: &Resource<R>) -> Result<T> {
        let place = self.place(handle.rep())?;
        Ok(self.live.remove(place).1)
    }

    /// All handles die.
    pub(crate) fn clear(&mut self) {
        self.live.clear();
    }

    /// The plugin dropped its handle; one of an earlier call is gone already.
    pub(crate) fn drop<R>(&mut self, handle: &Resource<R>) {
        if let Ok(place) = self.place(handle.rep()) {
            self.live.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_bounded_at_n_and_n_plus_one_and_never_used_twice() {
        let mut handles = Handles::new("cup", 2);
        let first: Resource<u8> = handles.add("one").unwrap();
        let second: Resource<u8> = handles.add("two").unwrap();
        let error = handles.add::<u8>("three").unwrap_err();
        assert!(error.message().contains("2 cups"), "{error}");
        assert_eq!(handles.take(&first).unwrap(), "one");
        assert!(handles.get(&first).unwrap_err().message().contains("earlier call"));
        let third: Resource<u8> = handles.add("three").unwrap();
        assert_ne!(third.rep(), first.rep());

        let mut later: Handles<&str> = Handles::new("cup", 2);
        later.continue_from(&handles);
        let fresh: Resource<u8> = later.add("four").unwrap();
        assert_ne!(fresh.rep(), second.rep());
        assert!(later.get(&second).is_err(), "of the earlier call");
        later.drop(&second);
    }
}
