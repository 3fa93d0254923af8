//! Errors as JavaScript sees them.

use js_sys::Reflect;
use wasm_bindgen::JsValue;

use crate::error::Error;

/// A JavaScript `Error` with the message of `error` and its `code`.
pub(super) fn to_js(error: Error) -> JsValue {
    coded(error.code(), &format!("{error:#}"))
}

/// A JavaScript `Error` with a `code` that only this binding gives.
pub(super) fn coded(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    // Setting a property on a new, extensible object cannot fail.
    let _ = Reflect::set(&error, &JsValue::from_str("code"), &JsValue::from_str(code));
    error.into()
}
