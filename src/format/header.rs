//! The header of a model file: its names, versions and limits, and reading it.

use std::collections::HashMap;

use safetensors::tensor::{Metadata, SafeTensors};

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};

/// The version of the format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Value of the `format` key.
pub(super) const FORMAT: &str = "munjang";

/// Largest header that is parsed; a model of 64 layers needs about 80 kB.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Largest magnitude of a scale, bias or gain. Real models stay below 100. With this bound and the
/// sizes of [`limits`](crate::config::limits), no value of a layer exceeds 1e27, so all stay finite but
/// the variance of such values, whose squares may overflow: then layer normalization gives its bias.
pub(super) const MAX_FLOAT: f32 = 1e4;

pub(super) fn malformed(message: impl Into<String>) -> Error {
    Error::weights_malformed(format!("not a usable model file: {}", message.into()))
}

pub(super) fn mismatch(message: String) -> Error {
    Error::new(
        ErrorKind::WeightsMismatch,
        format!("the model file does not fit its config: {message}"),
    )
}

/// Splits the file into its header and the offset of its data.
pub(super) fn read_header(bytes: &[u8]) -> Result<(usize, Metadata)> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(Error::new(
            ErrorKind::WeightsTruncated,
            format!("the model file has {} bytes; even its header is missing", bytes.len()),
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "its header claims {length} bytes, more than the {MAX_HEADER_BYTES} allowed (is this a \
             web page or another kind of file?)"
        )));
    }
    let start = 8 + length as usize;
    if bytes.len() < start {
        return Err(truncated(bytes.len(), start));
    }
    match SafeTensors::read_metadata(bytes) {
        Ok((_, metadata)) => Ok((start, metadata)),
        // The checks inside compare the last offset with the file's length; tell which way it is off.
        Err(source) => Err(match data_end(&bytes[8..start]) {
            Some(end) if bytes.len() - start < end => {
                truncated(bytes.len(), start.saturating_add(end))
            }
            Some(end) if bytes.len() - start > end => {
                malformed(format!("{} bytes follow its last tensor", bytes.len() - start - end))
            }
            _ => malformed("its header is not valid"),
        }
        .with_source(source)),
    }
}

fn truncated(found: usize, expected: usize) -> Error {
    Error::new(
        ErrorKind::WeightsTruncated,
        format!("the model file ends after {found} bytes of {expected}; load it again"),
    )
}

/// Where the header says that the data ends, if it can be read at all.
fn data_end(header: &[u8]) -> Option<usize> {
    let header: HashMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let end = |tensor: &serde_json::Value| tensor["data_offsets"][1].as_u64();
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .filter_map(|(_, t)| end(t))
        .max()
        .and_then(|end| usize::try_from(end).ok())
}

fn metadata_value<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a str> {
    let values = metadata.metadata().as_ref();
    values.and_then(|values| values.get(key)).map(String::as_str).ok_or_else(|| {
        malformed(format!(
            "its header has no {key:?}; convert the checkpoint with `munjang convert`"
        ))
    })
}

/// The model id: 16 hex digits, by which an index knows its model.
pub(super) fn read_model_id(metadata: &Metadata) -> Result<String> {
    let id = metadata_value(metadata, "model_id")?;
    let digits = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if id.len() != 16 || !digits {
        let shown: String = id.chars().take(40).collect();
        return Err(malformed(format!(
            "its model_id is {shown:?}; expected 16 hexadecimal digits"
        )));
    }
    Ok(id.to_owned())
}

pub(super) fn read_config(metadata: &Metadata) -> Result<ModelConfig> {
    let format = metadata_value(metadata, "format")?;
    if format != FORMAT {
        return Err(malformed(format!("its format is {format:?}, not {FORMAT:?}")));
    }
    let version = metadata_value(metadata, "format_version")?;
    if version != FORMAT_VERSION.to_string() {
        return Err(Error::new(
            ErrorKind::WeightsVersion,
            format!(
                "the model file has format version {version}; this build reads version \
                 {FORMAT_VERSION}: use matching versions of munjang and the model"
            ),
        ));
    }
    let config: ModelConfig =
        serde_json::from_str(metadata_value(metadata, "config")?).map_err(|source| {
            Error::new(ErrorKind::ConfigInvalid, "cannot read the model's config")
                .with_source(source)
        })?;
    config.validate()?;
    Ok(config)
}
