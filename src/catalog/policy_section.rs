//! What the options of `[lookup.X]` from `ordering` on mean, with `[lookup.X.retry]`, `[lookup.X.circuit_breaker]` and
//! `[lookup.X.cache]`.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::problem::Complaint;
use super::section::Section;
use crate::lookup::policy::{
    BreakerPolicy, CachePolicy, FullCache, LookupPolicy, OnFailure, Ordering, PartialCache, RetryPolicy, ToldBy,
};
use crate::quantity::show_duration;

/// How often files are looked at for changes, unless the catalog says otherwise.
const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(30);

/// Reads the policy of a lookup table; its cache has been read already.
pub(super) fn read_policy(section: &Section, cache: CachePolicy) -> LookupPolicy {
    let default = LookupPolicy::default();
    let policy = LookupPolicy {
        ordering: section.choice("ordering", &Ordering::ALL.map(|o| (o.name(), o))).unwrap_or(default.ordering),
        timeout: section.duration("timeout").map_or(default.timeout, unless_zero),
        on_failure: section.choice("on_failure", &OnFailure::ALL.map(|o| (o.name(), o))).unwrap_or(default.on_failure),
        capacity: section.count("capacity").unwrap_or(default.capacity),
        capacity_bytes: section.size("capacity_bytes").unwrap_or(default.capacity_bytes),
        batch_size: section.count("batch_size").unwrap_or(default.batch_size),
        batch_delay: section.duration("batch_delay").unwrap_or(default.batch_delay),
        max_in_flight: section.count("max_in_flight").unwrap_or(default.max_in_flight),
        max_answer_bytes: section.size("max_answer_bytes").unwrap_or(default.max_answer_bytes),
        rate_limit: section.small("rate_limit").and_then(NonZeroU32::new),
        retry: read_retry(section),
        circuit_breaker: read_breaker(section),
        cache,
    };
    if let Some(timeout) = policy.timeout
        && policy.batch_delay >= timeout
    {
        let (delay, timeout) = (show_duration(policy.batch_delay), show_duration(timeout));
        let message = format!("batch_delay ({delay}) in {} is not below timeout ({timeout})", section.title);
        let hint = "A row that waits so long for company has timed out before its key is asked for.";
        section.complain_of("batch_delay", Complaint::new(message).with_hint(hint));
    }
    policy
}

fn read_retry(lookup: &Section) -> RetryPolicy {
    let default = RetryPolicy::default();
    let Some(section) = lookup.section("retry", "lookup.X.retry") else { return default };
    section.check_keys();
    // A long delay alone raises the default of the other, and a short max_delay alone lowers it.
    let (delay, max_delay) = (section.duration("delay"), section.duration("max_delay"));
    let retry = RetryPolicy {
        max_attempts: section.small("max_attempts").and_then(NonZeroU32::new).unwrap_or(default.max_attempts),
        delay: delay.unwrap_or(default.delay.min(max_delay.unwrap_or(default.delay))),
        max_delay: max_delay.unwrap_or(default.max_delay.max(delay.unwrap_or_default())),
        on_miss: section.flag("on_miss").unwrap_or(default.on_miss),
    };
    if retry.delay > retry.max_delay {
        let (delay, most) = (show_duration(retry.delay), show_duration(retry.max_delay));
        let message = format!("delay ({delay}) in {} is above max_delay ({most})", section.title);
        section.complain_of("delay", Complaint::new(message));
    }
    retry
}

fn read_breaker(lookup: &Section) -> Option<BreakerPolicy> {
    let section = lookup.section("circuit_breaker", "lookup.X.circuit_breaker")?;
    section.check_keys();
    let default = BreakerPolicy::default();
    Some(BreakerPolicy {
        failures: section.small("failures").and_then(NonZeroU32::new).unwrap_or(default.failures),
        open_for: section.duration("open_for").unwrap_or(default.open_for),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Partial,
    Full,
}

/// The cache's keys and the modes in which they mean something.
const KEYS_OF_MODES: [(&str, &[Mode]); 11] = [
    ("max_rows", &[Mode::Partial, Mode::Full]),
    ("max_bytes", &[Mode::Partial, Mode::Full]),
    ("expire_after_write", &[Mode::Partial]),
    ("expire_after_access", &[Mode::Partial]),
    ("expire_misses_after", &[Mode::Partial]),
    ("refresh_after", &[Mode::Partial]),
    ("serve_stale_for", &[Mode::Partial]),
    ("listen", &[Mode::Partial]),
    ("tracking", &[Mode::Partial]),
    ("reload_every", &[Mode::Full]),
    ("load_timeout", &[Mode::Full]),
];

/// Reads the cache of a table in a store of the type `of`.
pub(super) fn read_cache(lookup: &Section, of: &'static str) -> CachePolicy {
    let Some(section) = lookup.section("cache", "lookup.X.cache") else { return uncached(of) };
    let section = section.of_type(of);
    section.require("mode");
    let modes = [("none", Mode::None), ("partial", Mode::Partial), ("full", Mode::Full)];
    let is_by_key = matches!(of, "simulated" | "http" | "redis");
    let offered = match of {
        "simulated" | "http" | "redis" => &modes[..2],
        // And files are found in memory alone.
        "files" => &modes[2..],
        _ => &modes[..],
    };
    if is_by_key && section.is_text("mode", "full") {
        let message = format!("mode = \"full\" in {} does not go with type \"{of}\"", section.title);
        let hint = "What is found by keys alone cannot be loaded whole: write mode = \"partial\".";
        section.complain_of("mode", Complaint::new(message).with_hint(hint));
        return uncached(of);
    }
    let Some(mode) = section.choice("mode", offered) else { return uncached(of) };
    refuse_keys_of_other_modes(&section, mode, &modes);
    match mode {
        Mode::None => CachePolicy::None,
        Mode::Partial => CachePolicy::Partial(read_partial(&section)),
        Mode::Full => CachePolicy::Full(read_full(&section, of)),
    }
}

/// What goes without the section.
fn uncached(of: &str) -> CachePolicy {
    match of {
        "files" => CachePolicy::Full(FullCache { reload_every: Some(LOOK_AT_FILES_EVERY), ..FullCache::default() }),
        _ => CachePolicy::None,
    }
}

fn refuse_keys_of_other_modes(section: &Section, mode: Mode, modes: &[(&str, Mode)]) {
    let Some((name, _)) = modes.iter().find(|(_, other)| *other == mode) else { return };
    for (key, _) in KEYS_OF_MODES.iter().filter(|(key, of)| section.has(key) && !of.contains(&mode)) {
        let message = format!("\"{key}\" in {} has no effect with mode = \"{name}\"", section.title);
        section.complain_of(key, Complaint::new(message));
    }
}

fn read_partial(section: &Section) -> PartialCache {
    let default = PartialCache::default();
    let is_bounded = section.has("max_rows") || section.has("max_bytes");
    let cache = PartialCache {
        max_rows: if is_bounded { max_rows(section) } else { default.max_rows },
        max_bytes: section.size("max_bytes"),
        expire_after_write: section.duration("expire_after_write"),
        expire_after_access: section.duration("expire_after_access"),
        expire_misses_after: section.duration("expire_misses_after").map_or(default.expire_misses_after, unless_zero),
        refresh_after: section.duration("refresh_after"),
        serve_stale_for: section.duration("serve_stale_for").unwrap_or(default.serve_stale_for),
        told_by: read_told_by(section),
    };
    refuse_useless_lifetimes(section, &cache);
    cache
}

/// A store has one of these keys at most.
fn read_told_by(section: &Section) -> Option<ToldBy> {
    match section.flag("tracking") {
        Some(true) => Some(ToldBy::Tracking),
        Some(false) | None => read_channel(section).map(|channel| ToldBy::Listen { channel }),
    }
}

/// The channel on which PostgreSQL tells of changes.
fn read_channel(section: &Section) -> Option<String> {
    /// PostgreSQL cuts longer names, and its NOTIFY refuses them.
    const MOST_BYTES: usize = 63;
    let channel = section.text("listen")?.value;
    if channel.len() > MOST_BYTES || channel.contains('\0') {
        let message = format!("\"listen\" in {} is no name of a channel: it has more than 63 bytes", section.title);
        section.complain_of("listen", Complaint::new(message));
        return None;
    }
    Some(channel)
}

fn refuse_useless_lifetimes(section: &Section, cache: &PartialCache) {
    if let (Some(refresh), Some(expire)) = (cache.refresh_after, cache.expire_after_write)
        && refresh >= expire
    {
        let (refresh, expire) = (show_duration(refresh), show_duration(expire));
        let message =
            format!("refresh_after ({refresh}) in {} is not below expire_after_write ({expire})", section.title);
        section.complain_of("refresh_after", Complaint::new(message).with_hint("An expired answer is not refreshed."));
    }
    // A wrong value of an expiry has been complained of: it is there all the same.
    let expires = section.has("expire_after_write") || section.has("expire_after_access");
    if !cache.serve_stale_for.is_zero() && !expires {
        let message = format!("\"serve_stale_for\" in {} has no effect where answers do not expire", section.title);
        let hint = "Write expire_after_write or expire_after_access as well.";
        section.complain_of("serve_stale_for", Complaint::new(message).with_hint(hint));
    }
}

fn read_full(section: &Section, of: &str) -> FullCache {
    let looked_at = (of == "files").then_some(LOOK_AT_FILES_EVERY);
    FullCache {
        reload_every: section.duration("reload_every").or(looked_at),
        load_timeout: section.duration("load_timeout").unwrap_or(FullCache::default().load_timeout),
        max_rows: max_rows(section),
        max_bytes: section.size("max_bytes"),
    }
}

fn max_rows(section: &Section) -> Option<NonZeroU64> {
    section.whole("max_rows").and_then(NonZeroU64::new)
}

fn unless_zero(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|duration| !duration.is_zero())
}
