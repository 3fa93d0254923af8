//! The tensors of a checkpoint folder, read as 32-bit floats.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::{invalid, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{LayerNorm, Linear, Matrix};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// One `.safetensors` file in memory, its header checked against its length.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    data_at: usize,
    metadata: Metadata,
}

/// All tensors of a checkpoint, in one file or several.
pub(super) struct Tensors {
    files: Vec<File>,
    /// Which file holds a tensor.
    places: HashMap<String, usize>,
}

impl Tensors {
    /// Reads `model.safetensors`, or the files that `model.safetensors.index.json` lists.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        if dir.join(SINGLE).exists() {
            files.push(File::read(dir.join(SINGLE))?);
        } else if dir.join(INDEX).exists() {
            for name in shard_names(&dir.join(INDEX))? {
                files.push(File::read(dir.join(name))?);
            }
        } else {
            let hint = if dir.join("pytorch_model.bin").exists() {
                "; found pytorch_model.bin, which is a pickle: save it again with \
                 save_pretrained(…, safe_serialization=True)"
            } else {
                ""
            };
            return Err(invalid(format!(
                "{} has no weights: expected {SINGLE} or {INDEX}{hint}",
                dir.display()
            )));
        }
        let mut places = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.metadata.offset_keys() {
                places.insert(name, index);
            }
        }
        Ok(Tensors { files, places })
    }

    /// What stands before `name` in this checkpoint: `""`, `"bert."`, `"model."`, ….
    ///
    /// # Errors
    /// [`ErrorKind::CheckpointInvalid`] if no tensor, or tensors of two prefixes, have this name.
    pub(super) fn prefix_of(&self, name: &str) -> Result<String> {
        let mut prefixes: Vec<&str> = self
            .places
            .keys()
            .filter_map(|key| key.strip_suffix(name))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        prefixes.sort_unstable();
        match prefixes[..] {
            [prefix] => Ok(prefix.to_owned()),
            [] => {
                let mut found: Vec<&str> = self.places.keys().map(String::as_str).collect();
                found.sort_unstable();
                let shown = found[..found.len().min(4)].join(", ");
                Err(invalid(format!(
                    "tensor {name} is missing (with or without a prefix such as bert.); \
                     found {} tensors: {shown}{}",
                    found.len(),
                    if found.len() > 4 { ", …" } else { "" }
                )))
            }
            _ => Err(invalid(format!(
                "tensor {name} exists more than once, under the prefixes {prefixes:?}; \
                 expected one encoder"
            ))),
        }
    }

    /// Whether the checkpoint has a tensor of this full name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A `rows × cols` matrix.
    pub(super) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        Ok(Matrix { rows, cols, data: self.floats(name, &[rows, cols])? })
    }

    /// `name.weight` (`out × in`) and `name.bias`.
    pub(super) fn linear(&self, name: &str, out: usize, in_: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), out, in_)?,
            bias: self.floats(&format!("{name}.bias"), &[out])?,
        })
    }

    /// `name.weight` and `name.bias`, or `gamma` and `beta` as checkpoints of TensorFlow origin say.
    pub(super) fn layer_norm(&self, name: &str, size: usize) -> Result<LayerNorm> {
        let (weight, bias) =
            if self.has(&format!("{name}.gamma")) { ("gamma", "beta") } else { ("weight", "bias") };
        Ok(LayerNorm {
            weight: self.floats(&format!("{name}.{weight}"), &[size])?,
            bias: self.floats(&format!("{name}.{bias}"), &[size])?,
        })
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(&place) = self.places.get(name) else {
            return Err(invalid(format!(
                "tensor {name} is missing; expected it with shape {shape:?}"
            )));
        };
        let file = &self.files[place];
        let info = file.metadata.info(name).expect("places lists what the files hold");
        let named =
            |what: String| invalid(format!("{}: tensor {name} {what}", file.path.display()));
        if info.shape != shape {
            return Err(named(format!(
                "has shape {:?}; expected {shape:?} from config.json",
                info.shape
            )));
        }
        let bytes = &file.bytes[file.data_at..][info.data_offsets.0..info.data_offsets.1];
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
            }
            Dtype::BF16 => {
                let values = bytes.as_chunks().0.iter();
                values.map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect()
            }
            other => {
                return Err(named(format!("has dtype {other:?}; expected F32, F16 or BF16")));
            }
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(named(format!(
                "holds {} at index {at}; expected finite numbers",
                values[at]
            )));
        }
        Ok(values)
    }
}

impl File {
    fn read(path: PathBuf) -> Result<Self> {
        let bytes = read_file(&path)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|source| {
            invalid(format!(
                "{} ({} bytes) is not a whole safetensors file; download or save it again",
                path.display(),
                bytes.len()
            ))
            .with_source(source)
        })?;
        Ok(File { path, bytes, data_at: 8 + header, metadata })
    }
}

/// The distinct file names in `weight_map`, sorted.
fn shard_names(path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = serde_json::from_slice(&read_file(path)?).map_err(|source| {
        invalid(format!("{} is not a safetensors index", path.display())).with_source(source)
    })?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    if let Some(name) = names.iter().find(|name| Path::new(name).components().count() != 1) {
        return Err(Error::new(
            ErrorKind::CheckpointInvalid,
            format!("{} names the file {name:?}; expected a file beside it", path.display()),
        ));
    }
    Ok(names)
}
