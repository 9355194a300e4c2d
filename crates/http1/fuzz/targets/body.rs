//! Looks for a body that breaks its property.
#![no_main]

#[path = "../properties.rs"]
#[expect(dead_code, reason = "each target looks at one property")]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::body(input));
