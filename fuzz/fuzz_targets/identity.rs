#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metactl_fuzz::run("identity", data));
