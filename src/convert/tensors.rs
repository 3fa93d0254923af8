//! The tensors of a checkpoint folder, read as 32-bit floats: from safetensors or, without those, from
//! `pytorch_model.bin`; in one file or in shards.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::pickle::PickleFile;
use super::read_file;
use super::report::Report;
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{LayerNorm, Linear, Matrix};

/// Names of the weights, in the order in which transformers looks for them; an index lists shards.
const FILES: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];

/// Largest index of shards; a few hundred names take some 100 kB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// One file in memory.
struct File {
    path: PathBuf,
    content: Content,
}

enum Content {
    /// Its header checked against its length.
    SafeTensors {
        bytes: Vec<u8>,
        data_at: usize,
        metadata: Metadata,
    },
    Pickle(PickleFile),
}

/// All tensors of a checkpoint, in one file or several.
pub(super) struct Tensors {
    files: Vec<File>,
    /// The index, if there is one.
    index: Option<&'static str>,
    /// Which file holds a tensor.
    places: HashMap<String, usize>,
}

impl Tensors {
    /// Reads the weights in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let found = FILES.into_iter().find(|(name, _)| dir.join(name).exists());
        let Some((name, is_index)) = found else {
            return Err(Error::checkpoint_invalid(format!(
                "{} has no weights: expected model.safetensors or pytorch_model.bin, or the index of their \
                 shards (…index.json){}",
                dir.display(),
                other_weights(dir)
            )));
        };
        let files = if is_index {
            let shards = shard_names(&dir.join(name))?.into_iter();
            shards.map(|shard| File::read(dir.join(shard))).collect::<Result<Vec<_>>>()?
        } else {
            vec![File::read(dir.join(name))?]
        };
        let mut places = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                places.insert(name, index);
            }
        }
        Ok(Tensors { files, index: is_index.then_some(name), places })
    }

    /// Says which files were read; `module` is their folder's name.
    pub(super) fn report(&self, module: &str, report: &mut Report) {
        let files = self.files.iter().filter_map(|file| file.path.file_name()?.to_str());
        for name in self.index.into_iter().chain(files) {
            report.used(super::modules::file(module, name), "weights");
        }
    }

    /// The weights' file, or the index of its shards.
    pub(super) fn file_name(&self) -> &str {
        let first = self.files.first().and_then(|file| file.path.file_name()?.to_str());
        self.index.or(first).unwrap_or_default()
    }

    /// Names of tensors that are not in `used`.
    pub(super) fn others(&self, used: &BTreeSet<String>) -> Vec<&str> {
        let names = self.places.keys().filter(|name| !used.contains(*name));
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        names
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
                Err(Error::checkpoint_invalid(format!(
                    "tensor {name} is missing (with or without a prefix such as bert.); \
                     found {} tensors: {shown}{}",
                    found.len(),
                    if found.len() > 4 { ", …" } else { "" }
                )))
            }
            _ => Err(Error::checkpoint_invalid(format!(
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
            return Err(Error::checkpoint_invalid(format!(
                "tensor {name} is missing; expected it with shape {shape:?}"
            )));
        };
        let file = &self.files[place];
        let named = |what: String| {
            Error::checkpoint_invalid(format!("{}: tensor {name} {what}", file.path.display()))
        };
        let found = file.shape(name);
        if found != shape {
            return Err(named(format!("has shape {found:?}; expected {shape:?} from config.json")));
        }
        let values = file.floats(name).map_err(named)?;
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
        let bytes = read_file(&path, u64::MAX)?;
        let len = bytes.len();
        let content = if path.extension().is_some_and(|extension| extension == "bin") {
            PickleFile::parse(&bytes).map(Content::Pickle).map_err(|error| {
                let message = format!("{} ({len} bytes): {error}", path.display());
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let told = Error::new(error.kind(), message);
                cause.into_iter().fold(told, Error::with_source)
            })?
        } else {
            let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|source| {
                Error::checkpoint_invalid(format!(
                    "{} ({len} bytes) is not a whole safetensors file; download or save it again",
                    path.display()
                ))
                .with_source(source)
            })?;
            Content::SafeTensors { bytes, data_at: 8 + header, metadata }
        };
        Ok(File { path, content })
    }

    fn names(&self) -> Vec<String> {
        match &self.content {
            Content::SafeTensors { metadata, .. } => metadata.offset_keys(),
            Content::Pickle(file) => file.names().map(str::to_owned).collect(),
        }
    }

    /// The shape of a tensor that is here.
    fn shape(&self, name: &str) -> Vec<usize> {
        match &self.content {
            Content::SafeTensors { metadata, .. } => {
                metadata.info(name).map(|info| info.shape.clone()).unwrap_or_default()
            }
            Content::Pickle(file) => {
                file.tensor(name).map(|tensor| tensor.shape.clone()).unwrap_or_default()
            }
        }
    }

    fn floats(&self, name: &str) -> std::result::Result<Vec<f32>, String> {
        let (bytes, dtype) = match &self.content {
            Content::SafeTensors { bytes, data_at, metadata } => {
                let info = metadata.info(name).ok_or("is missing")?;
                (&bytes[*data_at..][info.data_offsets.0..info.data_offsets.1], info.dtype)
            }
            Content::Pickle(file) => return file.floats(file.tensor(name).ok_or("is missing")?),
        };
        match dtype {
            Dtype::F32 => Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Dtype::F16 => {
                let values = bytes.as_chunks().0.iter();
                Ok(values.map(|&b| half::f16::from_le_bytes(b).to_f32()).collect())
            }
            Dtype::BF16 => {
                let values = bytes.as_chunks().0.iter();
                Ok(values.map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect())
            }
            Dtype::F64 => {
                let values = bytes.as_chunks().0.iter();
                Ok(values.map(|&b| f64::from_le_bytes(b) as f32).collect())
            }
            other => Err(format!("has dtype {other:?}; expected F32, F16, BF16 or F64")),
        }
    }
}

/// What a folder without weights has in their place, for the message.
fn other_weights(dir: &Path) -> &'static str {
    let has = |name: &str| dir.join(name).exists();
    if has("tf_model.h5") || has("flax_model.msgpack") {
        "; found weights for TensorFlow or Flax: AutoModel.from_pretrained(…, from_tf=True or \
         from_flax=True).save_pretrained(…) of transformers 4 writes the expected file"
    } else if has("adapter_config.json") {
        "; found an adapter: merge it into its base model (merge_and_unload of peft) and save that"
    } else if has("onnx") {
        "; found onnx only, which munjang does not read"
    } else {
        ""
    }
}

/// The distinct file names in `weight_map`, sorted.
fn shard_names(path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index =
        serde_json::from_slice(&read_file(path, MAX_INDEX_BYTES)?).map_err(|source| {
            Error::checkpoint_invalid(format!("{} is not an index of shards", path.display()))
                .with_source(source)
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
