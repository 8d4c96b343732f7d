//! Tests of the index over several sources.

use super::*;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(repository: &str, content: &str, platform: &str) -> ResolvedSource {
    let bytes = content.as_bytes().to_vec();
    let platform: Platform = platform.parse().unwrap();
    let mut entry = IndexEntry::new(MediaType::OciManifest, Digest::of(&bytes), 7);
    entry.platform = Some(EntryPlatform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        ..EntryPlatform::default()
    });
    ResolvedSource { name: name(repository), entry, bytes }
}

fn index(repository: &str, entries: Vec<IndexEntry>) -> ResolvedSource {
    let index = IndexDocument {
        schema_version: 2,
        media_type: Some(MediaType::OciIndex),
        artifact_type: None,
        manifests: entries,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = index.to_bytes();
    let entry = IndexEntry::new(MediaType::OciIndex, Digest::of(&bytes), 0);
    ResolvedSource { name: name(repository), entry, bytes }
}

fn attestation(of: &ResolvedSource) -> IndexEntry {
    let mut entry = IndexEntry::new(MediaType::OciManifest, Digest::of(b"attestation"), 9);
    entry.platform = Some(EntryPlatform {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        ..EntryPlatform::default()
    });
    entry.annotations = BTreeMap::from([
        (REFERENCE_TYPE.to_owned(), ATTESTATION.to_owned()),
        (REFERENCE_DIGEST.to_owned(), of.entry.digest.to_string()),
    ]);
    entry
}

fn options(annotations: &[&str], prefers_index: bool, platforms: &[&str]) -> CombineOptions {
    CombineOptions {
        annotations: annotations.iter().flat_map(|text| Annotation::parse(text).unwrap()).collect(),
        prefers_index,
        platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
    }
}

fn combined(sources: &[ResolvedSource], options: &CombineOptions) -> Result<Combined> {
    select(join(sources, options)?, &options.platforms, &|_part| Ok(None))
}

fn platforms(combined: &Combined) -> Vec<String> {
    let platform =
        |part: &CombinedPart| part.entry.platform.as_ref().unwrap().normalized().to_string();
    combined.parts.iter().map(platform).collect()
}

#[test]
fn images_are_listed_in_order_and_once() {
    let (amd64, arm64) =
        (image("r.example/a", "x", "linux/amd64"), image("r.example/b", "y", "linux/arm64"));
    let sources = [arm64.clone(), amd64, arm64];
    let combined = combined(&sources, &options(&[], true, &[])).unwrap();
    assert_eq!(platforms(&combined), ["linux/arm64", "linux/amd64"]);
    assert_eq!(combined.parts[0].source, name("r.example/b"));
    let index: IndexDocument = serde_json::from_slice(&combined.bytes).unwrap();
    assert_eq!(index.media_type, Some(MediaType::OciIndex));
    assert_eq!(combined.entry.digest, Digest::of(&combined.bytes));
}

#[test]
fn single_source_is_copied_unless_an_index_is_preferred_or_annotated() {
    let amd64 = image("r.example/a", "x", "linux/amd64");
    let only = std::slice::from_ref(&amd64);
    assert_eq!(join(only, &options(&[], false, &[])).unwrap().bytes, amd64.bytes);
    assert_eq!(join(only, &options(&[], true, &[])).unwrap().entry.media_type, MediaType::OciIndex);
    let annotated = join(only, &options(&["index:a=b"], false, &[])).unwrap();
    assert_eq!(annotated.entry.media_type, MediaType::OciIndex);
    let list = index("r.example/a", vec![amd64.entry]);
    for prefers_index in [false, true] {
        let copied = join(std::slice::from_ref(&list), &options(&[], prefers_index, &[])).unwrap();
        assert_eq!(copied.bytes, list.bytes);
        assert_eq!(copied.parts.len(), 1);
    }
}

#[test]
fn platforms_are_selected_with_their_attestations() {
    let amd64 = image("r.example/a", "x", "linux/amd64");
    let arm64 = image("r.example/a", "y", "linux/arm64");
    let attestation = attestation(&amd64);
    let list = index("r.example/a", vec![amd64.entry, arm64.entry, attestation]);
    let list = std::slice::from_ref(&list);
    let selected = combined(list, &options(&[], true, &["linux/amd64"])).unwrap();
    assert_eq!(platforms(&selected), ["linux/amd64", "unknown/unknown"]);
    assert_eq!(selected.entry.digest, Digest::of(&selected.bytes));
    let selected = combined(list, &options(&[], true, &["linux/arm64/v8"])).unwrap();
    assert_eq!(platforms(&selected), ["linux/arm64"]);
    let error = combined(list, &options(&[], true, &["linux/s390x"])).unwrap_err();
    assert_eq!(error.to_string(), "cannot join the images: no image is for a given platform");
}

#[test]
fn attestation_of_a_referrer_gets_an_entry() {
    let amd64 = image("r.example/a", "x", "linux/amd64");
    let joined = join(std::slice::from_ref(&amd64), &options(&[], true, &[])).unwrap();
    let mut referrer = IndexEntry::new(MediaType::OciManifest, Digest::of(b"z"), 3);
    referrer.artifact_type = Some(ATTESTATION_ARTIFACT.to_owned());
    let selected = select(joined, &[], &|_part| Ok(Some(referrer.clone()))).unwrap();
    let last = &selected.parts[1].entry;
    assert_eq!(last.annotations[REFERENCE_DIGEST], amd64.entry.digest.to_string());
    assert_eq!(last.artifact_type, None);
}

#[test]
fn annotations_go_to_the_index_and_its_entries() {
    let sources =
        [image("r.example/a", "x", "linux/amd64"), image("r.example/a", "y", "linux/arm64")];
    let annotations = ["index:a=1", "manifest-descriptor[linux/arm64]:b=2"];
    let combined = combined(&sources, &options(&annotations, true, &[])).unwrap();
    let index: IndexDocument = serde_json::from_slice(&combined.bytes).unwrap();
    assert_eq!(index.annotations, BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    assert!(index.manifests[0].annotations.is_empty());
    assert_eq!(index.manifests[1].annotations["b"], "2");
    let error = join(&sources, &options(&["c=3"], true, &[])).unwrap_err();
    assert!(error.to_string().contains("use index:c"), "{error}");
}

#[test]
fn images_of_docker_get_dockers_list_without_annotations() {
    let mut source = image("r.example/a", "x", "linux/amd64");
    source.entry.media_type = MediaType::DockerManifest;
    let sources = [source];
    let combined = join(&sources, &options(&["index:a=1"], true, &[])).unwrap();
    assert_eq!(combined.entry.media_type, MediaType::DockerIndex);
    let index: IndexDocument = serde_json::from_slice(&combined.bytes).unwrap();
    assert!(index.annotations.is_empty());
}
