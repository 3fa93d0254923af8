//! Defaults of options, and when they are left unsaid: options at their default are left out of a stage's
//! settings, so that a run goes on under a later version that has more of them.

pub(super) fn one() -> f64 {
    1.0
}

pub(super) fn is_one(value: &f64) -> bool {
    *value == 1.0
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
