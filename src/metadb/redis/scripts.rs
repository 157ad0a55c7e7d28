//! What must happen in one step on the server. Every script first checks that it may act, and its first write is one
//! that a full or read-only server refuses: it does all or nothing.

use super::wire::Batch;

/// How long zot's locks live, in seconds.
pub const LOCK_SECONDS: &[u8] = b"8";

/// KEYS: lock. ARGV: token. Lets go of a lock of ours.
const RELEASE: &[u8] = b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// KEYS: lock. ARGV: token. Gives a lock of ours its full time again.
const EXTEND: &[u8] =
    b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], 8000) end return 0";

/// KEYS: version lock, version. ARGV: schema. Sets the version unless somebody sees to it.
const INITIALISE: &[u8] = b"if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end \
    if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SET', KEYS[2], ARGV[1]) end return 1";

/// KEYS: walk lock. ARGV: token, owner, milliseconds to live. Answers 1, or who has it and for how many seconds.
const TAKE: &[u8] = b"local now = tonumber(redis.call('TIME')[1]) \
    local held = redis.call('HGET', KEYS[1], 'token') \
    if held and held ~= ARGV[1] then \
      return {redis.call('HGET', KEYS[1], 'owner'), now - tonumber(redis.call('HGET', KEYS[1], 'since') or now)} end \
    redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[2], 'since', now, 'seq', 0) \
    redis.call('PEXPIRE', KEYS[1], ARGV[3]) return 1";

/// KEYS: walk lock. ARGV: token, milliseconds to live.
const RENEW: &[u8] = b"if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then \
    return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";

/// KEYS: walk lock. ARGV: token.
const LEAVE: &[u8] =
    b"if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// KEYS: walk lock. ARGV: walk token, count so far. Counts what was written before; answers as a commit does.
const COUNT: &[u8] = b"if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end \
    if tonumber(redis.call('HGET', KEYS[1], 'seq')) < tonumber(ARGV[2]) then return -3 end \
    return redis.call('HINCRBY', KEYS[1], 'seq', 1)";

/// KEYS: walk lock, repo lock, RepoLastUpdated, RepoBlobsMeta, RepoMeta. ARGV: walk token, count so far, repo token,
/// repo, `delete` or three flags of what is written, then the three records. Answers the new count; -1 the walk lock is
/// not ours, -2 the repo lock is not ours, -3 writes are lost.
const COMMIT: &[u8] = b"if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end \
    if tonumber(redis.call('HGET', KEYS[1], 'seq')) < tonumber(ARGV[2]) then return -3 end \
    if redis.call('GET', KEYS[2]) ~= ARGV[3] then return -2 end \
    local count = redis.call('HINCRBY', KEYS[1], 'seq', 1) \
    for i = 3, 5 do \
      if ARGV[5] == 'delete' then redis.call('HDEL', KEYS[i], ARGV[4]) \
      elseif string.sub(ARGV[5], i - 2, i - 2) == '1' then redis.call('HSET', KEYS[i], ARGV[4], ARGV[i + 3]) end \
    end \
    redis.call('DEL', KEYS[2]) return count";

/// KEYS: walk lock, stamp. ARGV: walk token, count so far, expected, new (empty for absent), whether this is tried
/// again. Answers 1 done, 0 the stamp is another, -1 and -3 as for a commit.
const STAMP: &[u8] = b"if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end \
    if tonumber(redis.call('HGET', KEYS[1], 'seq')) < tonumber(ARGV[2]) then return -3 end \
    local found = redis.call('GET', KEYS[2]) or '' \
    if ARGV[5] == '1' and found == ARGV[4] then return 1 end \
    if found ~= ARGV[3] then return 0 end \
    if ARGV[4] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[4]) end return 1";

/// Records of one repo to be written.
pub struct Commit<'a> {
    pub walk: &'a str,
    pub walk_token: &'a [u8],
    pub count: u64,
    pub lock: &'a str,
    pub lock_token: &'a [u8],
    pub repo: &'a str,
    /// RepoLastUpdated, RepoBlobsMeta and RepoMeta with their keys; `None` to delete all three.
    pub records: Option<[Option<&'a [u8]>; 3]>,
    pub hashes: [&'a str; 3],
}

impl Batch {
    fn eval(&mut self, script: &[u8], keys: &[&[u8]], args: &[&[u8]]) {
        let count = keys.len().to_string();
        let all: Vec<&[u8]> = [script, count.as_bytes()].into_iter().chain(keys.iter().chain(args).copied()).collect();
        self.push("EVAL", &all);
    }

    pub fn release(&mut self, lock: &str, token: &[u8]) {
        self.eval(RELEASE, &[lock.as_bytes()], &[token]);
    }

    pub fn extend(&mut self, lock: &str, token: &[u8]) {
        self.eval(EXTEND, &[lock.as_bytes()], &[token]);
    }

    pub fn initialise(&mut self, lock: &str, version: &str, schema: &str) {
        self.eval(INITIALISE, &[lock.as_bytes(), version.as_bytes()], &[schema.as_bytes()]);
    }

    pub fn take_walk(&mut self, walk: &str, token: &[u8], owner: &str, millis: u128) {
        self.eval(TAKE, &[walk.as_bytes()], &[token, owner.as_bytes(), millis.to_string().as_bytes()]);
    }

    pub fn renew_walk(&mut self, walk: &str, token: &[u8], millis: u128) {
        self.eval(RENEW, &[walk.as_bytes()], &[token, millis.to_string().as_bytes()]);
    }

    pub fn leave_walk(&mut self, walk: &str, token: &[u8]) {
        self.eval(LEAVE, &[walk.as_bytes()], &[token]);
    }

    pub fn count(&mut self, walk: &str, token: &[u8], count: u64) {
        self.eval(COUNT, &[walk.as_bytes()], &[token, count.to_string().as_bytes()]);
    }

    pub fn commit(&mut self, commit: &Commit<'_>) {
        let records = commit.records.unwrap_or_default();
        let flags: String = records.iter().map(|record| if record.is_some() { '1' } else { '0' }).collect();
        let mode = if commit.records.is_some() { flags.as_str() } else { "delete" };
        let [last_updated, blobs, meta] = records.map(Option::unwrap_or_default);
        let [key_a, key_b, key_c] = commit.hashes.map(str::as_bytes);
        self.eval(
            COMMIT,
            &[commit.walk.as_bytes(), commit.lock.as_bytes(), key_a, key_b, key_c],
            &[
                commit.walk_token,
                commit.count.to_string().as_bytes(),
                commit.lock_token,
                commit.repo.as_bytes(),
                mode.as_bytes(),
                last_updated,
                blobs,
                meta,
            ],
        );
    }

    pub fn stamp(&mut self, keys: [&str; 2], token: &[u8], count: u64, stamps: [&[u8]; 2], again: bool) {
        let [expected, new] = stamps;
        let again: &[u8] = if again { b"1" } else { b"0" };
        self.eval(STAMP, &keys.map(str::as_bytes), &[token, count.to_string().as_bytes(), expected, new, again]);
    }
}
