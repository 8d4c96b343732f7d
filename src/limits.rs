//! The bounds on untrusted input, each with its reason.
//!
//! Base images, archives, registries, caches, build contexts, Dockerfiles and stores can all be
//! written by somebody else. Whatever reads one of them takes its bounds from here, so that one
//! page answers how much memory, disk and time such an input can cost.
//!
//! | Input | Bound | Default | Raised by |
//! |---|---|---|---|
//! | archive (layer, ADD, cache mount, context, `load`) | bytes, holes included | 128 GiB | `--max-unpacked-size` |
//! | | bytes for each packed byte, above the first 4 GiB | 1,100 | `--max-unpacked-size` |
//! | | entries, implied directories included | 4 Mi | `--max-unpacked-size` |
//! | | names, link targets and attributes together | 512 MiB | |
//! | | one path | 4,096 bytes | |
//! | | directories inside one another | 500 | |
//! | | headers before one entry | 1 MiB | |
//! | | pieces of one sparse file | 1 Mi | |
//! | | memory of decoders: zstd, xz | 128 MiB, 256 MiB | |
//! | | entries looked at for replacements | 4 Gi | |
//! | file of a context | bytes, holes included | 128 GiB | `--max-unpacked-size` |
//! | what a RUN leaves | bytes, holes included | 128 GiB | `--max-unpacked-size` |
//! | layer that is made | extended attributes together | 512 MiB | |
//! | archive of images (`load`) | bytes, files | 1 TiB, 100,000 | `--max-unpacked-size` |
//! | file system of the store | space and inodes left unused | 2 %, at most 256 MiB and 10,000 | |
//! | image | index, manifest, config | 16 MiB; from a registry 4 MiB | |
//! | | layers; nested indexes | 1,000; 4 | |
//! | | entries of each list of the config; ports | 10,000; 196,605 | |
//! | | `/etc/passwd`, `/etc/group` | 16 MiB each | |
//! | layout directory, local cache | files | regular, of the descriptor's size | |
//! | cache document | bytes | 64 MiB | |
//! | registry, token server, bucket, helper | body that is kept | 64 KiB to 1 MiB | |
//! | | redirects | 10 | |
//! | repository | bytes of a commit's files, of git's text | 128 GiB, 256 MiB | `--max-unpacked-size` |
//! | download of ADD | bytes | 64 GiB | |
//! | Dockerfile | one line | 65,535 bytes | |
//! | ignore file, `--exclude` | patterns; bytes; one pattern | 50,000; 2 MiB; 4,096 bytes | |
//! | `${x#p}`, `${x%p}`, `${x/p/r}` | characters of the pattern | 4,096 | |
//! | build | stages at once; images fetched at once | 64; 16 | |
//! | ssh mount | connections at once | 32 | |
//! | output of steps, in the record of a build | one step; a build | 4 MiB + 1 MiB; about 128 MiB | |
//! | path of a file | symbolic links | 40 | |
//!
//! Limits on what is shown (widths, rows, names in a message) is bounded where it is shown.

use std::num::NonZeroUsize;

// Archives: layers of images, archives that ADD unpacks, archives of cache mounts, contexts from a
// tar stream, and what `rbuild load` reads.

/// Bytes that one archive may unpack to, holes of sparse files included.
///
/// Docker, BuildKit and containerd have no such bound. Amazon ECR accepts packed layers of up to
/// 52,000 MiB, more than the other large registries do (GHCR: 10 GB); model weights, which make up
/// the largest layers, hardly compress. The bound is more than twice that. Reading and hashing as
/// many zeros takes about a minute. `--max-unpacked-size` sets another bound.
pub const MAX_UNPACKED_BYTES: u64 = 128 << 30;

/// Bytes that an archive may unpack to for each packed byte, once it is over
/// [`EXPANSION_FLOOR_BYTES`].
///
/// The most that gzip reaches is 1,032 (RFC 1951: a length of 258 takes at least two bits), so no
/// gzip layer is refused for it. zstd, bzip2, xz and sparse files go far beyond; honest data does
/// not.
pub const MAX_EXPANSION: u64 = 1_100;

/// Bytes that an archive may unpack to however small it is: enough for any file system image or
/// preallocated database that consists of zeros, and little for a disk.
pub const EXPANSION_FLOOR_BYTES: u64 = 4 << 30;

/// Bytes of all files of an archive of images, which `rbuild load` reads: `docker save` packs many
/// images into one. The free space of the store is looked at while they are written.
pub const MAX_IMAGES_BYTES: u64 = 1 << 40;

/// Average size of a file that the number of entries is derived from: an archive may have one
/// entry for each as many bytes of its bound, which are 4,194,304 entries by default.
///
/// The largest public images have a few hundred thousand files in a layer. An entry takes about
/// 400 bytes of memory while the archive is unpacked.
pub const BYTES_FOR_EACH_ENTRY: u64 = 32 << 10;

/// Entries that an archive may have however small its bound on bytes is.
pub const MIN_ENTRIES: u64 = 65_536;

/// Bytes of all names, link targets and extended attributes of one archive, which are all kept in
/// memory: 128 for each entry where there are the most. A layer with more attributes is not made:
/// it could not be read again.
pub const MAX_NAME_BYTES_OF_ARCHIVE: u64 = 512 << 20;

/// Bytes of the PAX headers and long names before one entry: Go's limit for each of them, so that
/// no other tool could read more. They are kept in memory until the entry comes.
pub const MAX_TAR_HEADER_BYTES: u64 = 1 << 20;

/// Bytes of a path or link target in an archive: `PATH_MAX` of Linux. Docker and containerd pass
/// whole paths to the kernel and so cannot unpack a longer one.
pub const MAX_ARCHIVE_PATH_BYTES: usize = 4096;

/// Directories inside one another, of archives and of what a step leaves. While a tree is walked,
/// each takes a descriptor, and one for each lower layer that has it.
pub const MAX_DIRECTORY_DEPTH: usize = 500;

/// Pieces of one sparse file. A fragmented disk image has some thousands.
pub const MAX_SPARSE_SEGMENTS: usize = 1024 * 1024;

/// Logarithm of the largest window of a zstd frame: 128 MiB, what `zstd --long` makes by default.
/// A frame of a few bytes may ask for 2 GiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Memory that decoding xz may take. The largest preset, `xz -9`, takes 65 MiB; a stream of a few
/// bytes may ask for 4 GiB.
pub const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// Entries that are looked at because later ones of the same archive replace them, all
/// replacements together. Replacing a directory looks at all entries, so that 4 Mi entries could
/// take days; this many take about half a minute.
pub const MAX_REPLACE_WORK: u64 = 4 << 30;

// Images: their documents, from registries, stores, engines, `rbuild load` and directories of OCI
// layouts.

/// Bytes of an index, manifest or config that is read into memory: four times what registries
/// accept, because layouts and stores hold indexes over whole repositories.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// Bytes of a manifest or index from a registry (distribution-spec, "Pushing Manifests", demands no
/// more of registries).
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Layers of a manifest: a stage of thousands of steps makes as many, and a manifest of
/// [`MAX_MANIFEST_BYTES`] has no space for more.
pub const MAX_LAYERS: usize = 10_000;

/// Indexes that name each other, one below the other. More is a cycle.
pub const MAX_INDEX_DEPTH: usize = 4;

/// Files of an archive of images; `docker save` writes at most three for each layer.
pub const MAX_FILES_OF_IMAGES: usize = 100_000;

/// Links from one name in an archive of images to the next.
pub const MAX_LINKS_BETWEEN_BLOBS: usize = 8;

/// Bytes of an engine's answer: a list of many images.
pub const MAX_ENGINE_BODY_BYTES: u64 = 64 << 20;

/// Bytes of the head of an engine's answer.
pub const MAX_ENGINE_HEAD_BYTES: u64 = 64 << 10;

// Registries, token servers, buckets and web servers.

/// Redirects that are followed: storage needs one, sometimes two, a web page a few more.
pub const MAX_REDIRECTS: u32 = 10;

/// Bytes of an error's body that are read.
pub const MAX_ERROR_BODY_BYTES: u64 = 64 << 10;

/// Bytes of a token server's answer.
pub const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// Bytes of a bucket's answer where a short text is expected.
pub const MAX_BUCKET_ANSWER_BYTES: u64 = 1 << 20;

/// Bytes of a credential helper's answer.
pub const MAX_HELPER_ANSWER_BYTES: u64 = 64 << 10;

/// Bytes of a file that ADD fetches. The free space of the store is looked at meanwhile.
pub const MAX_DOWNLOAD_BYTES: u64 = 64 << 30;

/// Bytes of the output of one call of git that are read: a list of all files of a repository.
pub const MAX_GIT_OUTPUT_BYTES: u64 = 256 << 20;

/// Bytes of a message through an ssh agent: what OpenSSH's agent accepts (`AGENT_MAX_LEN`).
pub const MAX_AGENT_MESSAGE_BYTES: u32 = 256 << 10;

// Caches that other builders exported.

/// Bytes of a cache's document: that of a hundred thousand steps.
pub const MAX_CACHE_DOCUMENT_BYTES: u64 = 64 << 20;

// Dockerfiles.

/// Bytes of a line: what BuildKit accepts, and far more than a person writes.
pub const MAX_DOCKERFILE_LINE_BYTES: usize = 65_535;

// The store.

/// Bytes of a layer's listing on disk: a million files with long names.
pub const MAX_LISTING_BYTES: u64 = 1 << 30;

/// Bytes of a path, target or attribute in a listing; nothing that the kernel accepts comes near.
pub const MAX_LISTING_FIELD_BYTES: usize = 1024 * 1024;

// Files of directories: contexts, layers, and what steps leave.

/// Symbolic links that one path may pass through: as many as the kernel follows
/// (path_resolution(7)).
pub const MAX_LINKS_FOLLOWED: usize = 40;

/// Bytes of the names of all extended attributes of a file, and of the value of one: the kernel's
/// own limits (xattr(7)).
pub const MAX_XATTR_LIST_BYTES: usize = 64 * 1024;

// Ignore files, and the patterns of `--exclude` and `--parents`.

/// Patterns of one list. A directory of the context keeps a bit for each that matched it or its
/// parents, and each file is compared with all of them.
pub const MAX_PATTERNS: usize = 50_000;

/// Bytes of all patterns of one list: each takes up to 32 bytes of memory.
pub const MAX_PATTERN_BYTES: usize = 2 << 20;

/// Bytes of one pattern: `PATH_MAX` of Linux. Matching takes memory and time in proportion to the
/// pattern's length times the path's.
pub const MAX_ONE_PATTERN_BYTES: usize = 4096;

// Configs of images.

/// Variables, labels, volumes, history entries, ONBUILD instructions and words of commands in an
/// image's config, each. The largest public images have some hundreds.
pub const MAX_CONFIG_ENTRIES: usize = 10_000;

/// Exposed ports in an image's config: all that exist of TCP, UDP and SCTP. Images of telephone
/// systems expose ranges of 10,000.
pub const MAX_EXPOSED_PORTS: usize = 3 * 65_535;

// Files of an image or of a step's root, which rbuild reads whole.

/// Bytes of `/etc/passwd` or `/etc/group`. A directory of 100,000 users has about 6 MiB; a sparse
/// file of a few bytes can be read as 30 GiB of zeros (CVE-2026-47262).
pub const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;

// What steps print. A step can print without end; the record of its build lies in the store.

/// Bytes that the beginning of one step's output may take in the record of a build.
pub const RECORDED_HEAD_BYTES: usize = 4 << 20;

/// Bytes that the end of it may take: memory as long as the step runs.
pub const RECORDED_END_BYTES: usize = 1 << 20;

/// Bytes that the output of all steps of a build may take, before those that follow get only
/// [`RECORDED_SHORT_BYTES`] for each end. Twice as many, and nothing more is recorded.
pub const MAX_RECORDED_OUTPUT_BYTES: usize = 64 << 20;

/// Bytes of the beginning and of the end of output where there was much before.
pub const RECORDED_SHORT_BYTES: usize = 64 << 10;

// The file system of the store.

/// Share of a file system that unpacking leaves unused: its hundredths, of space and of inodes.
/// Other programs fail in surprising ways on a full disk, and removing files may take space too.
pub const RESERVED_HUNDREDTHS: u64 = 2;

/// The most that is left unused.
pub const MAX_RESERVED_BYTES: u64 = 256 << 20;

/// The most inodes that are left unused.
pub const MAX_RESERVED_INODES: u64 = 10_000;

/// Bytes that are written between two looks at the free space.
pub const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// Files that are created between two looks at the free inodes.
pub const SPACE_CHECK_FILES: u64 = 1024;

/// Maximum number of times that a path is resolved anew while other processes rename directories on
/// it: openat2(2) gives up with `EAGAIN` then.
pub const MAX_RESOLVE_RETRIES: usize = 100;

/// Maximum number of processes that an error names.
pub const MAX_NAMED_PROCESSES: usize = 4;

/// Maximum length of the kernel's table of locks that is read: a line of about 60 bytes for each lock
/// of the machine.
pub const MAX_LOCK_TABLE_BYTES: u64 = 16 << 20;

// Threads: what asks for more waits.

/// Maximum number of connections to an ssh agent's socket that are served at once: each takes a
/// thread and two descriptors. More wait for one of them to end.
pub const MAX_AGENT_CONNECTIONS: usize = 32;

/// Maximum number of stages that are built at once: each takes a thread, also while it waits for
/// another stage, and up to a megabyte.
pub const MAX_STAGES_AT_ONCE: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Maximum number of images whose documents are fetched at once: each takes a thread and a
/// connection.
pub const MAX_IMAGES_AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

// Expansion of words.

/// Maximum number of characters in a pattern of `${x#p}`, `${x%p}` and `${x/p/r}`. A value is
/// compared with 64 characters of the pattern at once, so each of its characters takes at most 64
/// operations.
pub const MAX_PATTERN_CHARS: usize = 4096;
