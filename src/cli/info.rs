//! `munjang info`.

use clap::Args;

use super::args::ModelArg;
use super::output::print;
use crate::error::Result;

/// Arguments of `munjang info`.
#[derive(Args)]
pub struct InfoArgs {
    #[command(flatten)]
    model: ModelArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints what the model file says of itself.
///
/// # Errors
/// Whatever is wrong with the model or the input, or keeps the output from being written.
pub fn run(args: InfoArgs) -> Result<()> {
    let info = args.model.load()?.info();
    // By way of text, so that an f32 keeps its short spelling.
    let config: serde_json::Value = serde_json::to_string(&info.config)
        .and_then(|text| serde_json::from_str(&text))
        .expect("a config becomes JSON");
    if args.json {
        let json = serde_json::json!({"modelId": info.model_id, "formatVersion": info.format_version,
            "bytes": info.bytes, "kernel": info.kernel, "dimension": info.config.dimension(), "config": config});
        return print(&format!("{json}\n"));
    }
    let mut text = format!(
        "model id                 {}\nformat version           {}\nbytes                    {}\n\
         kernels on this machine  {}\n",
        info.model_id, info.format_version, info.bytes, info.kernel
    );
    text += &format!("values of an embedding   {}\n", info.config.dimension());
    for (name, value) in config.as_object().into_iter().flatten() {
        if name == "prompts" {
            for (name, prompt) in value.as_object().into_iter().flatten() {
                text += &format!("{:23}  {prompt}\n", format!("prompt {name:?}"));
            }
            continue;
        }
        text += &format!("{name:23}  {value}\n");
    }
    print(&text)
}
