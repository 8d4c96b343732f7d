//! Merging of targets, and the removal of repeated entries.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attest, NullableMap, Resources, Secret, SshKey, Target};

impl Target {
    /// Adds what `other` sets: lists that describe inputs grow, other values are replaced.
    pub fn merge(&mut self, other: &Self) {
        self.merge_base(other);
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        extend_map(&mut self.args, other.args.as_ref());
        extend_map(&mut self.labels, other.labels.as_ref());
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        append(&mut self.annotations, other.annotations.as_deref());
        append(&mut self.attest, other.attest.as_deref());
        self.attest = self.attest.take().map(unique_attests);
        append(&mut self.policy, other.policy.as_deref());
        append(&mut self.secrets, other.secrets.as_deref());
        self.secrets = self.secrets.take().map(unique_secrets);
        append(&mut self.ssh, other.ssh.as_deref());
        self.ssh = self.ssh.take().map(unique_ssh);
        replace(&mut self.platforms, &other.platforms);
        append(&mut self.cache_from, other.cache_from.as_deref());
        if other.cache_from.is_some() {
            self.cache_from = self.cache_from.take().map(without_repeated);
        }
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.outputs, &other.outputs);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        append(&mut self.no_cache_filter, other.no_cache_filter.as_deref());
        replace(&mut self.shm_size, &other.shm_size);
        append(&mut self.ulimits, other.ulimits.as_deref());
        if let Some(limits) = &other.resources {
            merge_resources(self.resources.get_or_insert_default(), limits);
        }
        if !other.description.is_empty() {
            other.description.clone_into(&mut self.description);
        }
        append(&mut self.entitlements, other.entitlements.as_deref());
        extend_map(&mut self.extra_hosts, other.extra_hosts.as_ref());
        self.inherits.extend(other.inherits.iter().cloned());
    }

    fn merge_base(&mut self, other: &Self) {
        if other.base.default.is_some() {
            self.base.default.clone_from(&other.base.default);
            self.base.use_default = other.base.use_default;
        }
        if other.context.is_some() {
            self.context.clone_from(&other.context);
            self.base.context.clone_from(&other.base.context);
            self.base.reference.clone_from(&other.base.reference);
        }
        for (name, location) in other.contexts.iter().flatten() {
            self.contexts.get_or_insert_default().insert(name.clone(), location.clone());
            match other.base.contexts.get(name) {
                Some(base) => self.base.contexts.insert(name.clone(), base.clone()),
                None => self.base.contexts.remove(name),
            };
        }
    }

    /// Removes repeated and empty entries.
    pub fn normalize(&mut self) {
        let lists = [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ];
        for list in lists.into_iter().flatten() {
            unique_texts(list);
        }
        self.attest = self.attest.take().map(unique_attests).filter(|list| !list.is_empty());
        self.secrets = self.secrets.take().map(unique_secrets).filter(|list| !list.is_empty());
        self.ssh = self.ssh.take().map(unique_ssh).filter(|list| !list.is_empty());
        self.cache_from = self.cache_from.take().map(without_repeated).filter(|l| !l.is_empty());
        self.cache_to = self.cache_to.take().map(without_repeated).filter(|list| !list.is_empty());
        self.outputs = self.outputs.take().map(without_repeated).filter(|list| !list.is_empty());
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".to_owned());
        }
        if let Some(list) = &mut self.entitlements {
            unique_texts(list);
        }
        if let Some(contexts) = &mut self.contexts {
            contexts.retain(|_, location| !location.is_empty());
        }
        self.contexts = self.contexts.take().filter(|contexts| !contexts.is_empty());
    }
}

fn replace<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
    if other.is_some() {
        own.clone_from(other);
    }
}

fn append<T: Clone>(own: &mut Option<Vec<T>>, other: Option<&[T]>) {
    if let Some(other) = other {
        own.get_or_insert_default().extend_from_slice(other);
    }
}

fn extend_map(own: &mut Option<NullableMap>, other: Option<&NullableMap>) {
    for (name, value) in other.into_iter().flatten() {
        if value.is_some() {
            own.get_or_insert_default().insert(name.clone(), value.clone());
        }
    }
}

fn merge_resources(own: &mut Resources, other: &Resources) {
    replace(&mut own.memory, &other.memory);
    replace(&mut own.memory_swap, &other.memory_swap);
    replace(&mut own.cpu_shares, &other.cpu_shares);
    replace(&mut own.cpu_period, &other.cpu_period);
    replace(&mut own.cpu_quota, &other.cpu_quota);
    replace(&mut own.cpuset_cpus, &other.cpuset_cpus);
    replace(&mut own.cpuset_mems, &other.cpuset_mems);
}

fn unique_texts(list: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
}

/// Keeps the last entry of each key, at the position of the first.
fn last_of_each<T>(list: Vec<T>, key: fn(&T) -> &str) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for entry in list {
        let position = *positions.entry(key(&entry).to_owned()).or_insert(kept.len());
        match kept.get_mut(position) {
            Some(earlier) => *earlier = entry,
            None => kept.push(entry),
        }
    }
    kept
}

fn unique_attests(list: Vec<Attest>) -> Vec<Attest> {
    last_of_each(list, |attest| &attest.kind)
}

fn unique_secrets(list: Vec<Secret>) -> Vec<Secret> {
    last_of_each(list, |secret| &secret.id)
}

fn unique_ssh(list: Vec<SshKey>) -> Vec<SshKey> {
    last_of_each(list, |key| &key.id)
}

/// Removes repeated entries as buildx does, which moves the last entry to the position of a removed
/// one: `--print` shows the order.
fn without_repeated<T: PartialEq>(mut list: Vec<T>) -> Vec<T> {
    for at in (0..list.len().saturating_sub(1)).rev() {
        let repeated = (at + 1..list.len()).find(|other| list.get(at) == list.get(*other));
        if let Some(other) = repeated {
            list.swap_remove(other);
        }
    }
    list
}
