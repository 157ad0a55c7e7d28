//! Go's build information inside an executable, read without running it (spec: "Binary identity" §5.3).
//!
//! The containers' tables are read through the `object` crate's low-level readers, which touch headers and section tables
//! only; a file can make them read at most 16 MiB.

use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::read::macho::{FatArch, MachHeader, MachOFatFile32, MachOFatFile64, Section, Segment};
use object::read::pe::ImageNtHeaders;
use object::read::{FileKind, ReadCache, ReadCacheOps, ReadRef};
use object::{LittleEndian as LE, elf, macho, pe};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most bytes of headers and tables that are read from one file.
const TABLES: u64 = 16 << 20;
/// Most bytes that are searched for the build information, from the start of its section.
const SEARCHED: u64 = 64 << 20;
/// Longest module text that is accepted; zot's has about 50 KB.
const MODULE_TEXT: u64 = 4 << 20;
const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER: u64 = 32;

/// What the Go toolchain recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of Go, with experiments.
    pub go_version: String,
    /// Import path of the main package.
    pub path: String,
    /// Path and version of the main module.
    pub module: (String, String),
    settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// A build setting, for example `-ldflags` or `vcs.revision`.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Parse the module text (without its frames).
    #[must_use]
    pub fn parse(go_version: &str, text: &str) -> Self {
        let mut info = Self { go_version: go_version.to_owned(), ..Self::default() };
        for line in text.lines() {
            let mut fields = line.split('\t');
            match (fields.next(), fields.next()) {
                (Some("path"), Some(path)) => path.clone_into(&mut info.path),
                (Some("mod"), Some(path)) => {
                    info.module = (path.to_owned(), fields.next().unwrap_or_default().to_owned());
                }
                (Some("build"), Some(setting)) => {
                    if let Some((key, value)) = key_value(setting) {
                        info.settings.push((key, value));
                    }
                }
                _ => {}
            }
        }
        info
    }

    /// Values that the linker was told to give to the variables of `<module>/pkg/buildinfo`: release tag and commit.
    /// `None` if the flags are not recorded, which is so for `-trimpath` builds and builds without any.
    #[must_use]
    pub fn linked(&self) -> Option<(String, String)> {
        let flags = self.setting("-ldflags")?;
        let (mut tag, mut commit) = (String::new(), String::new());
        let arguments = split_arguments(flags);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let flag = argument.strip_prefix('-').map(|flag| flag.strip_prefix('-').unwrap_or(flag));
            let definition = match flag {
                Some("X") => arguments.next().map(String::as_str),
                Some(flag) => flag.strip_prefix("X="),
                None => None,
            };
            let Some((variable, value)) = definition.and_then(|definition| definition.split_once('=')) else {
                continue;
            };
            // -X for a package that is not in the program does nothing.
            let Some((package, name)) = variable.rsplit_once('.') else { continue };
            let ours = package.strip_suffix("/pkg/buildinfo");
            if ours.is_none() || (!self.module.0.is_empty() && ours != Some(self.module.0.as_str())) {
                continue;
            }
            match name {
                "ReleaseTag" => value.clone_into(&mut tag),
                "Commit" => value.clone_into(&mut commit),
                _ => {}
            }
        }
        Some((tag, commit))
    }
}

/// What a file is and what Go wrote into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Not ELF, Mach-O or PE.
    Unknown,
    /// An executable; `None` without readable build information (other languages, Go before 1.18, damaged).
    Executable(Option<BuildInfo>),
}

/// Read what `file` is.
///
/// # Errors
/// Only if the file cannot be read; whatever its content, that is an answer.
pub fn read(file: &File) -> io::Result<Program> {
    let length = file.metadata()?.len();
    let cache = ReadCache::new(Bounded { file, length, position: 0, left: TABLES });
    let Ok(kind) = FileKind::parse(&cache) else { return Ok(Program::Unknown) };
    let Some(place) = place(kind, &cache, length) else { return Ok(Program::Unknown) };
    let Some((start, size)) = place else { return Ok(Program::Executable(None)) };
    let Some(at) = find_magic(file, start, size.min(SEARCHED))? else { return Ok(Program::Executable(None)) };
    Ok(Program::Executable(read_at(file, at)?))
}

/// Offset and size of the part that holds the build information; outer `None` if the file is no known container.
fn place(kind: FileKind, data: &ReadCache<Bounded<'_>>, length: u64) -> Option<Option<(u64, u64)>> {
    Some(
        match kind {
            FileKind::Elf32 => elf_place::<elf::FileHeader32<object::Endianness>, _>(data),
            FileKind::Elf64 => elf_place::<elf::FileHeader64<object::Endianness>, _>(data),
            FileKind::MachO32 => macho_place::<macho::MachHeader32<object::Endianness>, _>(data, 0),
            FileKind::MachO64 => macho_place::<macho::MachHeader64<object::Endianness>, _>(data, 0),
            FileKind::MachOFat32 => slice_place(
                data,
                MachOFatFile32::parse(data).ok().and_then(|file| Some(file.arches().first()?.file_range())),
            ),
            FileKind::MachOFat64 => slice_place(
                data,
                MachOFatFile64::parse(data).ok().and_then(|file| Some(file.arches().first()?.file_range())),
            ),
            FileKind::Pe32 => pe_place::<pe::ImageNtHeaders32, _>(data),
            FileKind::Pe64 => pe_place::<pe::ImageNtHeaders64, _>(data),
            _ => return None,
        }
        .filter(|(start, _)| *start < length),
    )
}

fn elf_place<'data, Elf: FileHeader, R: ReadRef<'data>>(data: R) -> Option<(u64, u64)> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    if let Ok(sections) = header.sections(endian, data)
        && let Some((_, section)) = sections.section_by_name(endian, b".go.buildinfo")
    {
        return section.file_range(endian);
    }
    let segments = header.program_headers(endian, data).ok()?;
    let writable = segments.iter().find(|segment| {
        let flags = segment.p_flags(endian);
        segment.p_type(endian) == elf::PT_LOAD && flags & (elf::PF_X | elf::PF_W) == elf::PF_W
    })?;
    Some(writable.file_range(endian))
}

fn macho_place<'data, Mach: MachHeader, R: ReadRef<'data>>(data: R, offset: u64) -> Option<(u64, u64)> {
    let header = Mach::parse(data, offset).ok()?;
    let endian = header.endian().ok()?;
    let mut commands = header.load_commands(endian, data, offset).ok()?;
    while let Ok(Some(command)) = commands.next() {
        let Ok(Some((segment, rest))) = Mach::Segment::from_command(command) else { continue };
        let Ok(sections) = segment.sections(endian, rest) else { continue };
        if let Some(section) = sections.iter().find(|section| section.name() == b"__go_buildinfo") {
            let (start, size) = section.file_range(endian, u64::from(section.offset(endian)))?;
            return Some((offset.checked_add(start)?, size));
        }
    }
    None
}

/// The first slice of a fat file.
fn slice_place(data: &ReadCache<Bounded<'_>>, range: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (offset, _) = range?;
    macho_place::<macho::MachHeader64<object::Endianness>, _>(data, offset)
        .or_else(|| macho_place::<macho::MachHeader32<object::Endianness>, _>(data, offset))
}

fn pe_place<'data, Pe: ImageNtHeaders, R: ReadRef<'data>>(data: R) -> Option<(u64, u64)> {
    let dos = pe::ImageDosHeader::parse(data).ok()?;
    let mut offset = u64::from(dos.nt_headers_offset());
    let (headers, _) = Pe::parse(data, &mut offset).ok()?;
    let sections = headers.sections(data, offset).ok()?;
    let wanted = pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ | pe::IMAGE_SCN_MEM_WRITE;
    let section = sections.iter().find(|section| section.characteristics.get(LE) & wanted == wanted)?;
    Some((u64::from(section.pointer_to_raw_data.get(LE)), u64::from(section.size_of_raw_data.get(LE))))
}

/// Offset of the magic on a 16-byte boundary of the part.
fn find_magic(file: &File, start: u64, size: u64) -> io::Result<Option<u64>> {
    let mut found = None;
    super::scan::windows(file, start..start.saturating_add(size), |base, window| {
        found = memchr::memmem::find_iter(window, MAGIC)
            .map(|at| base + at as u64)
            .find(|at| (at - start).is_multiple_of(16));
        found.is_none()
    })?;
    Ok(found)
}

/// The two strings behind the header at `at`.
fn read_at(file: &File, at: u64) -> io::Result<Option<BuildInfo>> {
    let mut header = [0; HEADER as usize];
    if read_full(file, &mut header, at)? < header.len() || header[15] & 2 == 0 {
        return Ok(None);
    }
    let mut at = at + HEADER;
    let Some(version) = read_string(file, &mut at)? else { return Ok(None) };
    let Some(text) = read_string(file, &mut at)? else { return Ok(None) };
    let framed = text.len() >= 33 && text.get(text.len() - 17) == Some(&b'\n');
    let text = if framed { text.get(16..text.len() - 16).unwrap_or_default() } else { &[] };
    Ok(Some(BuildInfo::parse(&String::from_utf8_lossy(&version), &String::from_utf8_lossy(text))))
}

/// A string behind its unsigned LEB128 length; `at` moves on.
fn read_string(file: &File, at: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 10];
    let got = read_full(file, &mut prefix, *at)?;
    let mut length = 0_u64;
    for (index, byte) in prefix.iter().take(got).enumerate() {
        length |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            if length > MODULE_TEXT {
                return Ok(None);
            }
            *at += index as u64 + 1;
            let mut text = vec![0; length as usize];
            let complete = read_full(file, &mut text, *at)? == text.len();
            *at += length;
            return Ok(complete.then_some(text));
        }
    }
    Ok(None)
}

/// Fill `buffer` from `at`; the count is less only at the end of the file.
pub(super) fn read_full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A file that gives out a limited number of bytes, because hostile tables can claim any size.
struct Bounded<'a> {
    file: &'a File,
    length: u64,
    position: u64,
    left: u64,
}

impl ReadCacheOps for Bounded<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.length)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        self.left = self.left.checked_sub(buffer.len() as u64).ok_or(())?;
        let count = read_full(self.file, buffer, self.position).map_err(|_| ())?;
        self.position += count as u64;
        Ok(count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        (self.read(buffer)? == buffer.len()).then_some(()).ok_or(())
    }
}

/// `key=value` of a `build` line, either of which Go may have quoted.
fn key_value(setting: &str) -> Option<(String, String)> {
    if setting.starts_with(['"', '`']) {
        let (key, rest) = unquote_prefix(setting)?;
        return Some((key, rest.strip_prefix('=').map(unquote)?));
    }
    let (key, value) = setting.split_once('=')?;
    Some((key.to_owned(), unquote(value)))
}

/// A Go string literal's value; text that is none stands for itself.
fn unquote(text: &str) -> String {
    match unquote_prefix(text) {
        Some((value, "")) => value,
        _ => text.to_owned(),
    }
}

/// The value of the Go string literal at the start of `text`, and what follows it.
fn unquote_prefix(text: &str) -> Option<(String, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.split_once('`').map(|(value, rest)| (value.to_owned(), rest));
    }
    let body = text.strip_prefix('"')?;
    let (mut value, mut chars) = (Vec::new(), body.chars());
    loop {
        let escape = match chars.next()? {
            '"' => return Some((String::from_utf8_lossy(&value).into_owned(), chars.as_str())),
            '\\' => chars.next()?,
            plain => {
                value.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '"' => u8::try_from(escape).ok(),
            _ => None,
        };
        if let Some(byte) = simple {
            value.push(byte);
            continue;
        }
        let (digits, radix, rest) = match escape {
            'x' => (2, 16, chars.as_str()),
            'u' => (4, 16, chars.as_str()),
            'U' => (8, 16, chars.as_str()),
            // The first of three octal digits is the escape itself.
            '0'..='7' => (3, 8, body.get(body.len() - chars.as_str().len() - 1..)?),
            _ => return None,
        };
        let code = u32::from_str_radix(rest.get(..digits)?, radix).ok()?;
        chars = rest.get(digits..)?.chars();
        if matches!(escape, 'u' | 'U') {
            value.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            value.push(u8::try_from(code).ok()?);
        }
    }
}

/// Split the linker flags as Go does: at white space; an argument that begins with a quote goes to the next such quote.
fn split_arguments(flags: &str) -> Vec<String> {
    let (mut arguments, mut rest) = (Vec::new(), flags.trim_start());
    while let Some(first) = rest.chars().next() {
        let quoted =
            matches!(first, '"' | '\'').then(|| rest.get(1..).and_then(|body| body.split_once(first))).flatten();
        let (argument, after) = quoted.unwrap_or_else(|| rest.split_once(char::is_whitespace).unwrap_or((rest, "")));
        arguments.push(argument.to_owned());
        rest = after.trim_start();
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn linked(flags: &str) -> Option<(String, String)> {
        BuildInfo::parse("go1.26", &format!("mod\texample.org/zot\tv1\nbuild\t-ldflags={flags}\n")).linked()
    }

    #[test]
    fn module_text() {
        let text = "path\texample.org/zot/cmd/zot\nmod\texample.org/zot\tv2.1.20+dirty\t\ndep\ta\tv1\th1:x=\n\
                    build\t-compiler=gc\nbuild\t\"odd key\"=\"a\\tb\"\nbuild\tvcs.modified=true\nbuild\t-tags=`a\"b`\n";
        let info = BuildInfo::parse("go1.26.5-X:jsonv2", text);
        assert_eq!(info.path, "example.org/zot/cmd/zot");
        assert_eq!(info.module, ("example.org/zot".into(), "v2.1.20+dirty".into()));
        assert_eq!(info.setting("odd key"), Some("a\tb"));
        assert_eq!(info.setting("vcs.modified"), Some("true"));
        assert_eq!(info.setting("-tags"), Some("a\"b"));
        assert_eq!(info.setting("-ldflags"), None);
        assert_eq!(info.linked(), None);
    }

    #[test]
    fn linker_flags() {
        let both = Some(("v1".to_owned(), "v1-0-gabcd".to_owned()));
        let p = "example.org/zot/pkg/buildinfo";
        assert_eq!(linked(&format!("\"-X {p}.ReleaseTag=v1 -X {p}.Commit=v1-0-gabcd -s -w\"")), both);
        assert_eq!(linked(&format!("\"-X={p}.ReleaseTag=v1 --X '{p}.Commit=v1-0-gabcd'\"")), both);
        assert_eq!(linked(&format!("\"-X {p}.Commit=old -X {p}.Commit=v1-0-gabcd -X {p}.ReleaseTag=v1\"")), both);
        // Another module's package is not in the program; other variables do not matter.
        assert_eq!(
            linked(&format!("\"-X other.org/zot/pkg/buildinfo.Commit=x -X {p}.GoVersion=y -s -X\"")),
            Some(Default::default())
        );
        assert_eq!(linked("-s"), Some(Default::default()));
        assert_eq!(
            linked("\"-X \\u0065\\x78ample.org\\057zot/pkg/buildinfo.Commit=c\""),
            Some((String::new(), "c".into()))
        );
    }

    proptest! {
        #[test]
        fn any_text_parses(text in "(?s).{0,200}", setting in "[\"`\\\\xuU0-9a-f=' ]{0,40}") {
            let _ = BuildInfo::parse("go", &text).linked();
            let _ = BuildInfo::parse("go", &format!("build\t-ldflags={setting}")).linked();
            let _ = split_arguments(&setting);
        }
    }
}
