//! The Go types of `imagetools inspect --format`: fields in the order in which docker writes them
//! (<https://github.com/opencontainers/image-spec/tree/main/specs-go/v1>).

use crate::cli::display::go_template::{
    Field, Shape, optional_field as optional, struct_field as field,
};

const TEXTS: Shape = Shape::List(&Shape::Text);
const LABELS: Shape = Shape::Map(&Shape::Text);
/// A set, as Go has it in JSON: keys with empty objects.
const SET: Shape = Shape::Map(&Shape::Struct(&[]));

const PLATFORM: [Field; 5] = [
    field("Architecture", "architecture", Shape::Text),
    field("OS", "os", Shape::Text),
    optional("OSVersion", "os.version", Shape::Text),
    optional("OSFeatures", "os.features", TEXTS),
    optional("Variant", "variant", Shape::Text),
];

/// A descriptor.
pub(super) const DESCRIPTOR: [Field; 8] = [
    field("MediaType", "mediaType", Shape::Text),
    field("Digest", "digest", Shape::Text),
    field("Size", "size", Shape::Number),
    optional("URLs", "urls", TEXTS),
    optional("Annotations", "annotations", LABELS),
    optional("Data", "data", Shape::Text),
    optional("Platform", "platform", Shape::Pointer(&PLATFORM)),
    optional("ArtifactType", "artifactType", Shape::Text),
];

/// An index, with the digest and size of its document.
pub(super) const INDEX: [Field; 6] = [
    field("SchemaVersion", "schemaVersion", Shape::Number),
    optional("MediaType", "mediaType", Shape::Text),
    field("Digest", "digest", Shape::Text),
    field("Size", "size", Shape::Number),
    field("Manifests", "manifests", Shape::List(&Shape::Struct(&DESCRIPTOR))),
    optional("Annotations", "annotations", LABELS),
];

const CONFIG: [Field; 10] = [
    optional("User", "User", Shape::Text),
    optional("ExposedPorts", "ExposedPorts", SET),
    optional("Env", "Env", TEXTS),
    optional("Entrypoint", "Entrypoint", TEXTS),
    optional("Cmd", "Cmd", TEXTS),
    optional("Volumes", "Volumes", SET),
    optional("WorkingDir", "WorkingDir", Shape::Text),
    optional("Labels", "Labels", LABELS),
    optional("StopSignal", "StopSignal", Shape::Text),
    optional("ArgsEscaped", "ArgsEscaped", Shape::Bool),
];

const ROOT_FS: [Field; 2] =
    [field("Type", "type", Shape::Text), field("DiffIDs", "diff_ids", TEXTS)];

const HISTORY: [Field; 5] = [
    optional("Created", "created", Shape::Text),
    optional("CreatedBy", "created_by", Shape::Text),
    optional("Author", "author", Shape::Text),
    optional("Comment", "comment", Shape::Text),
    optional("EmptyLayer", "empty_layer", Shape::Bool),
];

/// The config of an image.
pub(super) const IMAGE: [Field; 10] = [
    optional("Created", "created", Shape::Text),
    optional("Author", "author", Shape::Text),
    field("Architecture", "architecture", Shape::Text),
    field("OS", "os", Shape::Text),
    optional("OSVersion", "os.version", Shape::Text),
    optional("OSFeatures", "os.features", TEXTS),
    optional("Variant", "variant", Shape::Text),
    field("Config", "config", Shape::Struct(&CONFIG)),
    field("RootFS", "rootfs", Shape::Struct(&ROOT_FS)),
    optional("History", "history", Shape::List(&Shape::Struct(&HISTORY))),
];

/// The fields of `.`, whose values are put together from several documents.
pub(super) const ROOT: [Field; 5] = [
    optional("Name", "name", Shape::Text),
    optional("Manifest", "manifest", Shape::Any),
    optional("Image", "image", Shape::Any),
    field("SBOM", "sbom", Shape::Any),
    field("Provenance", "provenance", Shape::Any),
];
