//! `rbuild du`: what the store holds, and how much it takes of the disk.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::images::{SHORT_ID, ago, known, unknown_size};
use super::{CliError, Environment, Exit, Global, open_store_to_free};
use crate::cli::args::store::DuArgs;
use crate::cli::display::stdout::{self, say};
use crate::cli::display::table::{self, row};
use crate::cli::display::text::has_effect;
use crate::cli::images::image_size::ImageSize;
use crate::diag::size;
use crate::image::StoredImages;
use crate::oci::{Digest, Reference};
use crate::plan::redacted;
use crate::store::{DiskUsage, DiskUsageKind, GcRoot, GcRootUsage, LayerUsage, Store};

/// The version of the JSON form; members may be added without a new one.
const VERSION: u32 = 1;
/// Characters of an instruction that are shown.
const MAX_TEXT: usize = 60;

/// The kinds in their order, with docker's names where it has them, and whether a plain `prune`
/// frees their bytes.
const KINDS: [(DiskUsageKind, &str, bool); 7] = [
    (DiskUsageKind::Images, "Images", false),
    (DiskUsageKind::BuildCache, "Build Cache", true),
    (DiskUsageKind::CacheMounts, "Cache Mounts", false),
    (DiskUsageKind::Downloads, "Downloads", true),
    (DiskUsageKind::FileHashes, "File Hashes", true),
    (DiskUsageKind::Unreferenced, "Unneeded", true),
    (DiskUsageKind::Index, "Index", false),
];

pub(crate) fn run(
    args: &DuArgs,
    global: &Global,
    environment: &Environment,
) -> Result<(), CliError> {
    let store = open_store_to_free(global, environment)?;
    let usage = store.usage().map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    if args.json {
        stdout::json(&to_json(&usage, &sizes(&store, &usage)));
        return Ok(());
    }
    if args.verbose {
        for (title, rows) in details(&usage, &sizes(&store, &usage), environment.now_s) {
            say!("{title}:");
            print(&rows);
            say!();
        }
    }
    print(&summary(&usage));
    Ok(())
}

/// The sizes of images by their manifest or index, as `inspect` has them.
type Sizes = BTreeMap<Digest, ImageSize>;

fn sizes(store: &Store, usage: &DiskUsage) -> Sizes {
    let mut sizes = Sizes::new();
    for one in &usage.roots {
        let GcRoot::Image { name, top } = &one.root else { continue };
        sizes.entry(*top).or_insert_with(|| match StoredImages::load(store, *top) {
            Ok(loaded) => ImageSize::of(store, &loaded.images)
                .unwrap_or_else(|error| unknown_size(name, &error)),
            Err(error) => unknown_size(name, &error),
        });
    }
    sizes
}

fn print(rows: &[Vec<String>]) {
    table::lines(rows).iter().for_each(|line| say!("{line}"));
}

fn summary(usage: &DiskUsage) -> Vec<Vec<String>> {
    let mut rows = vec![row([&"TYPE", &"TOTAL", &"ON DISK", &"RECLAIMABLE"])];
    let mut reclaimable_bytes = 0;
    for (kind, name, is_pruned) in KINDS {
        let found = usage.kinds.get(&kind).copied().unwrap_or_default();
        let pruned_bytes = if is_pruned { found.n_bytes } else { 0 };
        reclaimable_bytes += pruned_bytes;
        rows.push(row([&name, &found.n, &size(found.n_bytes), &size(pruned_bytes)]));
    }
    rows.push(row([&"Total", &"", &size(usage.n_bytes), &size(reclaimable_bytes)]));
    rows
}

/// One table for each kind of which there is something.
fn details(usage: &DiskUsage, sizes: &Sizes, now_s: i64) -> Vec<(&'static str, Vec<Vec<String>>)> {
    let used = |used_s: i64| ago(now_s.saturating_sub(used_s));
    let heads = ["NAME", "IMAGE ID", "LAST USED", "SIZE", "PACKED", "ON DISK", "SHARED"];
    let mut images = vec![heads.map(str::to_owned).to_vec()];
    let mut steps = vec![row([&"STEP", &"LAYER", &"LAST USED", &"ON DISK", &"SHARED"])];
    let mut others = vec![row([&"TYPE", &"WHAT", &"LAST USED", &"ON DISK"])];
    for one in &usage.roots {
        let shared_bytes = one.n_bytes.saturating_sub(one.own_bytes);
        let (used, bytes) = (used(one.used_s), size(one.n_bytes));
        match &one.root {
            GcRoot::Image { name, top } => {
                let id = one.id.map_or(String::new(), |id| short(&id.hex()));
                let all = sizes.get(top).copied().unwrap_or_default();
                let (tar, packed) = (known(all.tar_bytes), known(all.packed_bytes));
                let (name, shared) = (familiar(name), size(shared_bytes));
                images.push(row([&name, &id, &used, &tar, &packed, &bytes, &shared]));
            }
            GcRoot::Step { components, layer, .. } => {
                let (text, layer) = (describe(components), short(&layer.digest().hex()));
                steps.push(row([&text, &layer, &used, &bytes, &(shared_bytes > 0)]));
            }
            GcRoot::Base { name, platform } => {
                let text = format!("FROM --platform={platform} {}", familiar(name));
                steps.push(row([&shortened(&text), &"", &used, &bytes, &(shared_bytes > 0)]));
            }
            GcRoot::Download { url } => {
                others.push(row([&"download", &redacted(url), &used, &bytes]));
            }
            GcRoot::CacheMount { key, id } => {
                let id = id.as_deref().map_or(short(key), shortened);
                others.push(row([&"cache mount", &id, &used, &bytes]));
            }
            GcRoot::HashCache { name } => {
                others.push(row([&"file hashes", &short(name), &used, &bytes]));
            }
        }
    }
    let mut layers = vec![row([&"LAYER", &"LAST USED", &"ON DISK", &"USED BY"])];
    layers.extend(usage.layers.iter().map(|layer| {
        let used = layer.used_s.map_or("never".to_owned(), used);
        row([&short(&layer.diff_id.digest().hex()), &used, &size(layer.n_bytes), &layer.n_roots])
    }));
    let tables =
        [("Images", images), ("Layers", layers), ("Build Cache", steps), ("Others", others)];
    tables.into_iter().filter(|(_, rows)| rows.len() > 1).collect()
}

fn short(hex: &str) -> String {
    hex.chars().take(SHORT_ID).collect()
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or(name.to_owned(), |name| name.familiar())
}

/// One line, not too long.
fn shortened(text: &str) -> String {
    let text: String = text.chars().map(|c| if has_effect(c) { ' ' } else { c }).collect();
    if text.chars().count() <= MAX_TEXT {
        return text;
    }
    let kept: String = text.chars().take(MAX_TEXT - 1).collect();
    format!("{kept}…")
}

/// The instruction that a step came from, as far as its key tells.
fn describe(components: &str) -> String {
    let pairs: Vec<(String, String)> = serde_json::from_str(components).unwrap_or_default();
    let all = |prefix: &str| {
        let fit = pairs.iter().filter(|(name, _)| name.starts_with(prefix));
        fit.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
    };
    let (argv, sources) = (all("argument "), all("source "));
    shortened(&match (argv.is_empty(), sources.is_empty()) {
        (false, _) => format!("RUN {argv}"),
        (true, false) => format!("COPY {sources} {}", all("destination")),
        (true, true) => format!("WORKDIR {}", all("path")),
    })
}

/// Seconds since 1970 as RFC 3339; nothing for 0, which nobody knows.
fn time(seconds: i64) -> Option<String> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string())
}

fn to_json(usage: &DiskUsage, sizes: &Sizes) -> Value {
    let kinds = KINDS.iter().map(|(kind, name, is_pruned)| {
        let found = usage.kinds.get(kind).copied().unwrap_or_default();
        let reclaimable = if *is_pruned { found.n_bytes } else { 0 };
        json!({
            "Type": name, "TotalCount": found.n, "Size": found.n_bytes,
            "Reclaimable": reclaimable,
        })
    });
    let kinds: Vec<Value> = kinds.collect();
    let records: Vec<Value> = usage.roots.iter().map(|one| record(one, sizes)).collect();
    let layers: Vec<Value> = usage.layers.iter().map(layer).collect();
    json!({
        "Version": VERSION, "Size": usage.n_bytes, "Types": kinds, "Records": records,
        "Layers": layers,
    })
}

fn layer(layer: &LayerUsage) -> Value {
    json!({
        "ID": layer.diff_id, "Size": layer.n_bytes, "UsageCount": layer.n_roots,
        "LastUsedAt": layer.used_s.and_then(time), "Shared": layer.n_roots > 1,
    })
}

fn record(one: &GcRootUsage, sizes: &Sizes) -> Value {
    let mut record = match &one.root {
        GcRoot::Image { name, top } => {
            let size = sizes.get(top).copied().unwrap_or_default();
            json!({
                "Type": "image", "Name": name, "ID": one.id, "Digest": top,
                "Bytes": size.tar_bytes, "PackedBytes": size.packed_bytes,
            })
        }
        GcRoot::Step { definition, components, layer } => json!({
            "Type": "step", "ID": definition.to_string(), "Description": describe(components),
            "Layer": layer,
        }),
        GcRoot::Base { name, platform } => {
            json!({ "Type": "base", "Name": name, "Platform": platform })
        }
        GcRoot::Download { url } => json!({ "Type": "download", "Name": redacted(url) }),
        GcRoot::CacheMount { key, id } => {
            json!({ "Type": "cachemount", "ID": key, "Name": id })
        }
        GcRoot::HashCache { name } => json!({ "Type": "filehashes", "ID": name }),
    };
    let shared_bytes = one.n_bytes.saturating_sub(one.own_bytes);
    let members = json!({
        "Size": one.n_bytes, "SharedSize": shared_bytes, "Shared": shared_bytes > 0,
        "CreatedAt": time(one.created_s), "LastUsedAt": time(one.used_s),
    });
    if let (Value::Object(record), Value::Object(members)) = (&mut record, members) {
        record.extend(members);
    }
    record
}
