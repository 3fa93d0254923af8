//! The model file.
use crate::error::Result;
use crate::weights::FloatModel;

/// Quantizes `model` and writes it as a model file.
pub fn write(_model: &FloatModel) -> Result<Vec<u8>> {
    unreachable!("written next")
}
