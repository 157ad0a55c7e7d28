//! Tiny executables with the parts that metactl reads: container headers, Go's build information, planted strings.

/// Kind of container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    Elf,
    /// Without section headers: the build information is in the first writable segment.
    ElfStripped,
    MachO,
    MachOFat,
    Pe,
}

pub const CONTAINERS: [Container; 5] =
    [Container::Elf, Container::ElfStripped, Container::MachO, Container::MachOFat, Container::Pe];

const SIZE: usize = 0x8000;
const INFO: usize = 0x2000;
/// Where planted strings begin; a multiple of 32.
pub const DATA: usize = 0x4000;

/// Description of an executable.
#[derive(Debug, Clone)]
pub struct Image {
    pub container: Container,
    /// Lines of Go's module text.
    pub info: Option<String>,
    /// Bytes at offsets from [`DATA`].
    pub planted: Vec<(usize, Vec<u8>)>,
    /// Zero bytes before [`DATA`], to move planted strings about in large files; a multiple of 32.
    pub padding: usize,
}

impl Image {
    /// A zot built with `-trimpath`, with nothing planted yet.
    pub fn new(container: Container) -> Self {
        let info = "path\tzotregistry.dev/zot/v2/cmd/zot\nmod\tzotregistry.dev/zot/v2\t(devel)\t\n\
                    build\t-compiler=gc\nbuild\t-trimpath=true\n";
        Self { container, info: Some(info.into()), planted: Vec::new(), padding: 0 }
    }

    /// Add lines to the build information.
    pub fn line(mut self, line: &str) -> Self {
        self.info = Some(format!("{}{line}\n", self.info.unwrap_or_default()));
        self
    }

    /// Replace the main module's version.
    pub fn module(mut self, version: &str) -> Self {
        self.info = self.info.map(|info| info.replace("(devel)", version));
        self
    }

    /// Plant a string with its NUL.
    pub fn plant(mut self, offset: usize, text: &str) -> Self {
        self.planted.push((offset, [text.as_bytes(), b"\0"].concat()));
        self
    }

    /// Plant bytes as they are.
    pub fn raw(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.planted.push((offset, bytes.to_vec()));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut file = vec![0; SIZE + self.padding];
        let place = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let info = self.info.as_deref().map(build_info).unwrap_or_default();
        let slice = if self.container == Container::MachOFat { 0x1000 } else { 0 };
        place(&mut file, INFO + slice, &info);
        match self.container {
            Container::Elf => place_elf(&mut file, true),
            Container::ElfStripped => place_elf(&mut file, false),
            Container::MachO => place(&mut file, 0, &macho()),
            Container::MachOFat => {
                let numbers = [0xcafe_babe, 1, 0x0100_000c, 0, slice as u32, (SIZE - slice) as u32, 12];
                place(&mut file, 0, &numbers.map(u32::to_be_bytes).concat());
                place(&mut file, slice, &macho());
            }
            Container::Pe => place(&mut file, 0, &pe()),
        }
        for (offset, bytes) in &self.planted {
            place(&mut file, DATA + self.padding + offset, bytes);
        }
        file
    }
}

/// Header and both strings, as Go's linker writes them.
fn build_info(text: &str) -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    let framed = [b"0123456789abcdef", text.as_bytes(), b"fedcba9876543210"].concat();
    for text in [b"go1.26.5".as_slice(), &framed] {
        let mut length = text.len();
        while length >= 0x80 {
            info.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        info.push(length as u8);
        info.extend_from_slice(text);
    }
    info
}

fn place_elf(file: &mut [u8], sections: bool) {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2_u16, 62].map(u16::to_le_bytes).concat());
    header.extend(1_u32.to_le_bytes());
    let sections_at = if sections { 0x1000_u64 } else { 0 };
    header.extend([0_u64, 64, sections_at].map(u64::to_le_bytes).concat());
    header.extend(0_u32.to_le_bytes());
    header.extend(
        [64_u16, 56, 2, 64, if sections { 3 } else { 0 }, if sections { 2 } else { 0 }].map(u16::to_le_bytes).concat(),
    );
    // A segment of code, then the writable one.
    for (flags, offset, size) in [(5_u32, 0_u64, 0x1000_u64), (6, INFO as u64, 0x1000)] {
        header.extend([1, flags].map(u32::to_le_bytes).concat());
        header.extend([offset, offset, offset, size, size, 0x1000].map(u64::to_le_bytes).concat());
    }
    file[..header.len()].copy_from_slice(&header);
    if sections {
        let names = b"\0.go.buildinfo\0.shstrtab\0";
        let mut table = vec![0; 64];
        for (name, kind, offset, size) in [(1_u32, 1_u32, INFO as u64, 0x1000_u64), (15, 3, 0x1800, names.len() as u64)]
        {
            table.extend([name, kind].map(u32::to_le_bytes).concat());
            table.extend([0, 0, offset, size].map(u64::to_le_bytes).concat());
            table.extend([0_u32, 0].map(u32::to_le_bytes).concat());
            table.extend([16_u64, 0].map(u64::to_le_bytes).concat());
        }
        file[0x1000..0x1000 + table.len()].copy_from_slice(&table);
        file[0x1800..0x1800 + names.len()].copy_from_slice(names);
    }
}

fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn macho() -> Vec<u8> {
    let mut file = [0xfeed_facf_u32, 0x0100_000c, 0, 2, 1, 152, 0, 0].map(u32::to_le_bytes).concat();
    file.extend([0x19_u32, 152].map(u32::to_le_bytes).concat());
    file.extend(name("__DATA"));
    file.extend([0_u64, 0x1000, INFO as u64, 0x1000].map(u64::to_le_bytes).concat());
    file.extend([3_u32, 3, 1, 0].map(u32::to_le_bytes).concat());
    file.extend(name("__go_buildinfo"));
    file.extend(name("__DATA"));
    file.extend([0_u64, 0x1000].map(u64::to_le_bytes).concat());
    file.extend([INFO as u32, 4, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat());
    file
}

fn pe() -> Vec<u8> {
    let mut file = b"MZ".to_vec();
    file.resize(0x3c, 0);
    file.extend(0x40_u32.to_le_bytes());
    file.extend(b"PE\0\0");
    file.extend([0x8664_u16, 1].map(u16::to_le_bytes).concat());
    file.extend([0_u32; 3].map(u32::to_le_bytes).concat());
    file.extend([240_u16, 0x22].map(u16::to_le_bytes).concat());
    let mut optional = 0x20b_u16.to_le_bytes().to_vec();
    optional.resize(108, 0);
    optional.extend(16_u32.to_le_bytes());
    optional.resize(240, 0);
    file.extend(optional);
    file.extend(b".data\0\0\0");
    file.extend([0x1000_u32, 0x1000, 0x1000, INFO as u32, 0, 0, 0, 0xc000_0040].map(u32::to_le_bytes).concat());
    file
}
