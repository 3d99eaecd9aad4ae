//! An answer that takes the reconciler's time: made anew at most for a tenth of it, however many ask.

use std::sync::Arc;
use std::time::Instant;

/// So many times as long as it took to make, an answer is given again.
const REST: u32 = 9;

#[derive(Debug)]
pub struct Kept<T> {
    /// And until when it will do.
    answer: Option<(Arc<T>, Instant)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { answer: None }
    }
}

impl<T> Kept<T> {
    pub fn get(&mut self, make: impl FnOnce() -> T) -> Arc<T> {
        self.get_by(Instant::now, make)
    }

    /// For who paces himself, and must not miss the last change: what holds now.
    pub fn renew(&mut self, make: impl FnOnce() -> T) -> Arc<T> {
        self.answer = None;
        self.get(make)
    }

    fn get_by(&mut self, clock: impl Fn() -> Instant, make: impl FnOnce() -> T) -> Arc<T> {
        let asked = clock();
        if let Some((answer, until)) = &self.answer
            && asked < *until
        {
            return answer.clone();
        }
        let answer = Arc::new(make());
        let made = clock();
        self.answer = Some((answer.clone(), made + (made - asked) * REST));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_crowd_that_asks_leaves_the_reconciler_most_of_its_time() {
        let now = Cell::new(Instant::now());
        let pass = |time| now.set(now.get() + time);
        let mut kept = Kept::default();
        for made in 0..100 {
            assert_eq!(*kept.get_by(|| now.get(), || made), made, "what takes no time is made anew each time");
        }
        let slow = || {
            pass(Duration::from_secs(1));
            100
        };
        assert_eq!(*kept.get_by(|| now.get(), slow), 100);
        pass(Duration::from_millis(8999));
        assert_eq!(*kept.get_by(|| now.get(), || unreachable!()), 100);
        pass(Duration::from_millis(1));
        assert_eq!(*kept.get_by(|| now.get(), || 101), 101);
    }

    #[test]
    fn who_watches_is_told_of_a_change_that_came_after_another_had_asked() {
        let now = Instant::now();
        let made = Cell::new(false);
        let mut kept = Kept::default();
        let clock = || if made.get() { now + Duration::from_secs(1) } else { now };
        let slow = || {
            made.set(true);
            "before"
        };
        assert_eq!(*kept.get_by(clock, slow), "before");
        assert_eq!(*kept.get_by(clock, || "after"), "before", "a crowd is told the same");
        assert_eq!(*kept.renew(|| "after"), "after");
    }
}
