//! The bounds on untrusted input, each with its reason.
//!
//! Base images, archives, registries, caches, build contexts, Dockerfiles and stores may all come
//! from untrusted authors. Every reader of one takes its bounds from this file, so one page tells
//! how much memory, disk and time such an input can cost.
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
//! | | segments of one sparse file | 1 Mi | |
//! | | memory of decoders: zstd, xz | 128 MiB, 256 MiB | |
//! | | entries visited for replacements | 4 Gi | |
//! | file of a context | bytes, holes included | 128 GiB | `--max-unpacked-size` |
//! | what a RUN leaves | bytes, holes included | 128 GiB | `--max-unpacked-size` |
//! | created layer | extended attributes together | 512 MiB | |
//! | archive of images (`load`) | bytes, files | 1 TiB, 100,000 | `--max-unpacked-size` |
//! | file system of the store | space and inodes left unused | 2 %, at most 256 MiB and 10,000 | |
//! | image | index, manifest, config | 16 MiB; from a registry 4 MiB | |
//! | | layers; nested indexes | 10,000; 4 | |
//! | | entries of each list of the config; ports | 10,000; 196,605 | |
//! | | `/etc/passwd`, `/etc/group` | 16 MiB each | |
//! | layout directory, local cache | files | regular, of the descriptor's size | |
//! | cache document | bytes | 64 MiB | |
//! | registry, token server, bucket, helper | response body | 64 KiB to 1 MiB | |
//! | | redirects | 10 | |
//! | repository | bytes of a commit's files, of git's text | 128 GiB, 256 MiB | `--max-unpacked-size` |
//! | download of ADD | bytes | 64 GiB | |
//! | Dockerfile | one line | 65,535 bytes | |
//! | ignore file, `--exclude` | patterns; bytes; one pattern | 50,000; 2 MiB; 4,096 bytes | |
//! | `${x#p}`, `${x%p}`, `${x/p/r}` | characters of the pattern | 4,096 | |
//! | definition file of bake | bytes; levels; digits of a number | 16 MiB; 100; 4,096 | |
//! | | expressions inside one another; all values together | 300; 256 MiB | |
//! | | targets of a matrix; files that include one another | 100,000; 20 | |
//! | `# rbuild:` comment | retries of a RUN | 20 | |
//! | bundle of certificates in an image | bytes | 4 MiB | |
//! | build | stages at once; images fetched at once | 32; 16 | |
//! | ssh mount | connections at once | 32 | |
//! | output of steps, in the record of a build | one step; a build | 4 MiB + 1 MiB; about 128 MiB | |
//! | path of a file | symbolic links | 40 | |
//!
//! Limits on displayed text (widths, rows, names in a message) are defined where the text is made.

use std::num::NonZeroUsize;

// Steps: what a Dockerfile, an image and a running command can ask of rbuild itself.

/// Maximum number of times that a failed RUN is re-run: what has failed so often will not succeed.
pub const MAX_STEP_RETRIES: u32 = 20;

/// Maximum number of processes that are listed to find what a step was doing: the default of
/// `kernel.pid_max` on large machines is 4 Mi, of which no build needs more.
pub const MAX_LISTED_PROCESSES: usize = 1 << 16;

/// Maximum length of a command line that is shown. The kernel allows megabytes.
pub const MAX_COMMAND_LINE_BYTES: u64 = 4096;

/// Maximum size of a file with trusted certificates: an image's bundle that is extended for a step.
/// Mozilla's list, which distributions ship, has 0.2 MiB.
pub const MAX_BUNDLE_BYTES: u64 = 4 << 20;

/// Maximum size of a file that is searched for certificates which only a step should have had. A bundle
/// that a step copies or extends is much smaller.
pub const MAX_CLEANED_BYTES: u64 = 64 << 20;

/// Maximum number of Java versions of an image whose truststores are extended. Images have one or two.
pub const MAX_JAVA_VERSIONS: usize = 16;

/// Maximum length of the message of a helper program that failed. It has a few lines.
pub const MAX_HELPER_MESSAGE_BYTES: usize = 4096;

/// Maximum size of a file about control groups, `/proc/self/mountinfo` included. Hosts with thousands of
/// containers have mount tables of a few MiB.
pub const MAX_CGROUP_FILE_BYTES: u64 = 16 << 20;

/// Maximum number of control groups of killed builds that a step removes.
pub const MAX_LEFT_CGROUPS: usize = 256;

// Archives: layers of images, archives that ADD unpacks, archives of cache mounts, contexts from a
// tar stream, and what `rbuild load` reads.

/// Maximum number of bytes that one archive may unpack to, holes of sparse files included.
///
/// Docker, BuildKit and containerd have no such bound. Amazon ECR accepts compressed layers of up
/// to 52,000 MiB, more than the other large registries (GHCR: 10 GB); model weights, which make up
/// the largest layers, hardly compress. The bound is more than twice that. Reading and hashing as
/// many zeros takes about a minute. `--max-unpacked-size` sets another bound.
pub const MAX_UNPACKED_BYTES: u64 = 128 << 30;

/// Maximum number of unpacked bytes for each packed byte of an archive, beyond
/// [`EXPANSION_FLOOR_BYTES`].
///
/// gzip reaches at most 1,032 (RFC 1951: a length of 258 takes at least two bits), so no gzip layer
/// is refused. zstd, bzip2, xz and sparse files can go far beyond; honest data does not.
pub const MAX_EXPANSION: u64 = 1_100;

/// Number of bytes that any archive may unpack to, however small it is: enough for a file system
/// image or preallocated database of zeros, and little for a disk.
pub const EXPANSION_FLOOR_BYTES: u64 = 4 << 30;

/// Maximum total size of the files in an archive of images, which `rbuild load` reads: `docker
/// save` packs many images into one. While they are written, the free space of the store is checked
/// too.
pub const MAX_IMAGES_BYTES: u64 = 1 << 40;

/// The average file size from which the maximum number of entries is derived: one entry for each as
/// many bytes of the bound, by default 4,194,304 entries.
///
/// The largest public images have a few hundred thousand files in a layer. An entry takes about
/// 400 bytes of memory while the archive is unpacked.
pub const BYTES_FOR_EACH_ENTRY: u64 = 32 << 10;

/// Number of entries that an archive may have however small its bound on bytes is.
pub const MIN_ENTRIES: u64 = 65_536;

/// Maximum total size of names, link targets and extended attributes of one archive, which are kept
/// in memory: 128 bytes for each of the maximum number of entries. A layer with more attributes is
/// not created, because it could not be read back.
pub const MAX_NAME_BYTES_OF_ARCHIVE: u64 = 512 << 20;

/// Maximum size of the PAX headers and long names before one entry: Go's limit for each of them
/// (`maxSpecialFileSize`, archive/tar), so no other tool could read more. They are kept in memory
/// until the entry.
pub const MAX_TAR_HEADER_BYTES: u64 = 1 << 20;

/// Maximum length of a path or link target in an archive: `PATH_MAX` of Linux. Docker and
/// containerd pass whole paths to the kernel and so cannot unpack longer ones.
pub const MAX_ARCHIVE_PATH_BYTES: usize = 4096;

/// Maximum depth of directories, in archives and in the result of a step. A walk of a tree keeps a
/// descriptor for each level, and one for each lower layer that has the directory.
pub const MAX_DIRECTORY_DEPTH: usize = 500;

/// Maximum number of segments of one sparse file. A fragmented disk image has a few thousand.
pub const MAX_SPARSE_SEGMENTS: usize = 1024 * 1024;

/// The base-2 logarithm of the largest window of a zstd frame: 128 MiB, the default of `zstd
/// --long` (zstd(1)). A frame of a few bytes may request 2 GiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Maximum memory for decoding xz. The largest preset, `xz -9`, takes 65 MiB (xz(1)); a stream of a
/// few bytes may request 4 GiB.
pub const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// Maximum number of entries visited because later ones of the same archive replace them, over all
/// replacements. Replacing a directory visits all entries, so 4 Mi entries could take days; this
/// number takes about half a minute.
pub const MAX_REPLACE_WORK: u64 = 4 << 30;

// Images: their documents, from registries, stores, engines, `rbuild load` and OCI layout
// directories.

/// Maximum size of an index, manifest or config that is read into memory: four times what
/// registries accept, because layouts and stores contain indexes of whole repositories.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// Maximum size of a manifest or index from a registry (distribution-spec, "Pushing Manifests",
/// requires registries to accept 4 MiB).
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Maximum number of layers of a manifest: a stage of thousands of steps creates as many, and a
/// manifest of [`MAX_MANIFEST_BYTES`] has no space for more.
pub const MAX_LAYERS: usize = 10_000;

/// Maximum depth of nested indexes. More is a cycle.
pub const MAX_INDEX_DEPTH: usize = 4;

/// Maximum number of files in an archive of images; `docker save` writes at most three for each
/// layer.
pub const MAX_FILES_OF_IMAGES: usize = 100_000;

/// Maximum number of links followed from one name to the next in an archive of images.
pub const MAX_LINKS_BETWEEN_BLOBS: usize = 8;

/// Maximum size of an engine's response body: a list of many images.
pub const MAX_ENGINE_BODY_BYTES: u64 = 64 << 20;

/// Maximum size of the head of an engine's response.
pub const MAX_ENGINE_HEAD_BYTES: u64 = 64 << 10;

// Registries, token servers, buckets and web servers.

/// Maximum number of redirects that are followed: storage needs one, sometimes two, a web page a
/// few more.
pub const MAX_REDIRECTS: u32 = 10;

/// Maximum number of bytes read of an error's body.
pub const MAX_ERROR_BODY_BYTES: u64 = 64 << 10;

/// Maximum size of a token server's response.
pub const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// Maximum size of a bucket's response where a short text is expected.
pub const MAX_BUCKET_ANSWER_BYTES: u64 = 1 << 20;

/// Maximum size of an answer of GitHub's cache service: a signed address, or an error.
pub const MAX_ACTIONS_ANSWER_BYTES: u64 = 64 << 10;

/// Maximum size of a credential helper's response.
pub const MAX_HELPER_ANSWER_BYTES: u64 = 64 << 10;

/// Maximum size of a file that ADD downloads. Meanwhile the free space of the store is checked too.
pub const MAX_DOWNLOAD_BYTES: u64 = 64 << 30;

/// Maximum size of the output of one call of git: a list of all files of a repository.
pub const MAX_GIT_OUTPUT_BYTES: u64 = 256 << 20;

/// Maximum size of a message to or from an ssh agent: that of OpenSSH's agent (`AGENT_MAX_LEN`).
pub const MAX_AGENT_MESSAGE_BYTES: u32 = 256 << 10;

// Caches that other builders exported.

/// Maximum size of a cache's document: that of a hundred thousand steps.
pub const MAX_CACHE_DOCUMENT_BYTES: u64 = 64 << 20;

/// Maximum size of a layer's listing in a cache, packed or not.
pub const MAX_CACHED_LISTING_BYTES: u64 = 16 << 20;

/// Maximum number of entries of such a listing: its tree takes 40 MiB.
pub const MAX_UNTRUSTED_ENTRIES: usize = 300_000;

// Dockerfiles.

/// Maximum length of a line: what BuildKit accepts, and far more than a person writes.
pub const MAX_DOCKERFILE_LINE_BYTES: usize = 65_535;

// The store.

/// Maximum size of a layer's listing on disk: a million files with long names.
pub const MAX_LISTING_BYTES: u64 = 1 << 30;

/// Maximum length of a path, target or attribute in a listing; the kernel accepts nothing near as
/// long.
pub const MAX_LISTING_FIELD_BYTES: usize = 1024 * 1024;

// Files of directories: contexts, layers, and what steps leave.

/// Maximum number of symbolic links in one path: as many as the kernel follows
/// (path_resolution(7)).
pub const MAX_LINKS_FOLLOWED: usize = 40;

/// Maximum size of the names of all extended attributes of a file, and of the value of one: the
/// kernel's own limits (xattr(7)).
pub const MAX_XATTR_LIST_BYTES: usize = 64 * 1024;

// Ignore files, and the patterns of `--exclude` and `--parents`.

/// Maximum number of patterns in one list. Each directory of the context keeps a bit for each
/// pattern that matched it or its parents, and each file is compared with all of them.
pub const MAX_PATTERNS: usize = 50_000;

/// Maximum total length of the patterns in one list: each byte takes up to 32 bytes of memory.
pub const MAX_PATTERN_BYTES: usize = 2 << 20;

/// Maximum length of one pattern: `PATH_MAX` of Linux. Matching takes memory and time in proportion
/// to the pattern's length times the path's.
pub const MAX_ONE_PATTERN_BYTES: usize = 4096;

// Configs of images.

/// Maximum number of variables, labels, volumes, history entries, ONBUILD instructions and words of
/// commands in an image's config, each. The largest public images have a few hundred.
pub const MAX_CONFIG_ENTRIES: usize = 10_000;

/// Maximum number of exposed ports in an image's config: all that exist of TCP, UDP and SCTP.
/// Images of telephone systems expose ranges of 10,000.
pub const MAX_EXPOSED_PORTS: usize = 3 * 65_535;

// Files of an image or of a step's root, which rbuild reads whole.

/// Maximum size of `/etc/passwd` or `/etc/group`. One with 100,000 users has about 6 MiB; a sparse
/// file of a few bytes can read as 30 GiB of zeros (CVE-2026-47262).
pub const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;

// Output of steps. A step can print without end; the record of its build is in the store.

/// Maximum size of the recorded beginning of one step's output.
pub const RECORDED_HEAD_BYTES: usize = 4 << 20;

/// Maximum size of the recorded end of one step's output; it is kept in memory while the step runs.
pub const RECORDED_END_BYTES: usize = 1 << 20;

/// Maximum size of the recorded output of all steps of a build. Beyond it each further step gets
/// only [`RECORDED_SHORT_BYTES`] for each end; beyond twice as much, nothing is recorded.
pub const MAX_RECORDED_OUTPUT_BYTES: usize = 64 << 20;

/// Maximum size of the recorded beginning and of the end of a step's output once
/// [`MAX_RECORDED_OUTPUT_BYTES`] is reached.
pub const RECORDED_SHORT_BYTES: usize = 64 << 10;

// The file system of the store.

/// The share of a file system that unpacking leaves unused, in hundredths, of space and of inodes.
/// Other programs fail in surprising ways on a full disk, and removing files may take space too.
pub const RESERVED_HUNDREDTHS: u64 = 2;

/// Maximum space that is left unused.
pub const MAX_RESERVED_BYTES: u64 = 256 << 20;

/// Maximum number of inodes that are left unused.
pub const MAX_RESERVED_INODES: u64 = 10_000;

/// Number of bytes written between two checks of the free space.
pub const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// Number of files created between two checks of the free inodes.
pub const SPACE_CHECK_FILES: u64 = 1024;

/// Maximum number of times that a path is resolved again while other processes rename directories
/// in it: openat2(2) then fails with `EAGAIN`.
pub const MAX_RESOLVE_RETRIES: usize = 100;

/// Maximum number of processes that an error names.
pub const MAX_NAMED_PROCESSES: usize = 4;

/// Maximum number of bytes read of the kernel's table of locks (proc_locks(5)): a line of about 60
/// bytes for each lock of the machine.
pub const MAX_LOCK_TABLE_BYTES: u64 = 16 << 20;

// Threads: requests for more wait.

/// Maximum number of connections to an ssh agent's socket that are served at once: each takes a
/// thread and two descriptors. Further ones wait.
pub const MAX_AGENT_CONNECTIONS: usize = 32;

/// Maximum number of stages that are built at once: each takes a thread, also while it waits for
/// another stage, and up to a megabyte.
pub const MAX_STAGES_AT_ONCE: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Maximum number of targets of a bake that are built at the same time, each with threads of its own.
pub const MAX_TARGETS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Maximum number of images whose documents are fetched at once: each takes a thread and a
/// connection.
pub const MAX_IMAGES_AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

// Expansion of words.

/// Maximum number of characters in a pattern of `${x#p}`, `${x%p}` and `${x/p/r}`. A value is
/// compared with 64 characters of the pattern at once, so each of its characters takes at most 64
/// operations.
pub const MAX_PATTERN_CHARS: usize = 4096;

/// Maximum size of a definition file of `bake`. The largest in the wild have some 100 KB.
pub const MAX_BAKE_FILE_BYTES: u64 = 16 << 20;
/// Maximum number of objects and lists inside one another in a definition file. The reader is
/// recursive; real files have fewer than ten.
pub const MAX_BAKE_DEPTH: usize = 100;
/// Maximum number of expressions and variables that are evaluated inside one another. Evaluation is
/// recursive, and each level takes a few kilobytes of stack.
pub const MAX_BAKE_NESTING: usize = 300;
/// Maximum size of all values together that the evaluation of definition files copies or makes. A
/// chain of lines such as `b = "${a}${a}"` doubles a text with each line.
pub const MAX_BAKE_VALUE_BYTES: usize = 256 << 20;
/// Maximum number of targets of one matrix, and of combinations of a `setproduct`.
pub const MAX_BAKE_ELEMENTS: usize = 100_000;
/// Maximum number of numbers of a `range`; cty has the same.
pub const MAX_BAKE_RANGE: usize = 1024;
/// Maximum number of digits of a number in a definition file, and of its exponent's value.
pub const MAX_BAKE_NUMBER_DIGITS: usize = 4_096;
/// Maximum memory of a compiled regular expression; the crate's default is ten times as much.
pub const MAX_BAKE_PATTERN_BYTES: usize = 1 << 20;
/// Maximum number of compose files that include or extend one another. Each costs a read.
pub const MAX_BAKE_INCLUDES: usize = 20;
