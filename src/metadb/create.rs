//! New database files appear whole or not at all: what a killed maker leaves half-done would be refused as damaged.

use std::hash::BuildHasher as _;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Make the file `path` by `make`, which is given an empty file of another name, readable by its owner only. If somebody
/// else makes `path` meanwhile, theirs it is. Durable when it returns.
///
/// # Errors
/// What `make` returned, or what `failed` makes of the reason why the file cannot be created.
pub(super) fn create_whole<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // A process id would not do: in containers they are all alike.
    name.push(format!(".{:016x}.new", std::hash::RandomState::new().hash_one(0)));
    let made = directory.join(name);
    // The mode must be right from the start: records name users and API keys.
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made).map_err(&failed)?;
    let placed = make(&made).and_then(|()| place(&made, path).map_err(&failed));
    // Gone if it was renamed; in nobody's way otherwise.
    let _ = std::fs::remove_file(&made);
    placed?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Give `made` the name `path`, unless somebody else made a file there meanwhile that is not empty.
fn place(made: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(made, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match std::fs::metadata(path)?.len() {
            0 => std::fs::rename(made, path),
            _ => Ok(()),
        },
        // File systems without hard links.
        Err(_) => std::fs::rename(made, path),
        Ok(()) => Ok(()),
    }
}
