#![no_main]

libfuzzer_sys::fuzz_target!(
    // libFuzzer's own hook ends the process at every panic, also at those of redb that metactl catches.
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| metactl_fuzz::run("redb", data)
);
