//! Times as people say them.

/// `seconds` in words, such as `42 s` or `3.5 min`.
pub(in crate::train) fn minutes(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.1} min", seconds / 60.0) }
}
