#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmplane::modules::fuzz;

fuzz_target!(|data: &[u8]| fuzz::runtime_config(data));
