//! PyTorch's numbers, read by the tests (see `tests/fixtures/make_train_golden.py`).

use std::collections::HashMap;

use candle_core::{Device, Tensor};

/// All of them by name.
pub(in crate::train) struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub(in crate::train) fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/train/golden.safetensors");
        Golden(candle_core::safetensors::load(path, &Device::Cpu).expect("the fixture is there"))
    }

    pub(in crate::train) fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the fixture"))
    }

    pub(in crate::train) fn values(&self, name: &str) -> Vec<f32> {
        values(self.tensor(name))
    }

    pub(in crate::train) fn integers(&self, name: &str) -> Vec<i64> {
        self.tensor(name).to_vec1().expect("a vector of integers")
    }

    pub(in crate::train) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

pub(in crate::train) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("a tensor of f32")
}

/// Asserts that `got` is within `tolerance` of `expected`, relative to the largest of `expected`
/// and to `floor`.
pub(in crate::train) fn assert_close(
    what: &str,
    got: &[f32],
    expected: &[f32],
    tolerance: f32,
    floor: f32,
) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let size = expected.iter().fold(floor, |max, x| max.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance * size, "{what}[{i}]: {got}; expected {expected} (size {size})");
    }
}
