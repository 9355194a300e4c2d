//! Sessions that clients go on with: tickets, which the client keeps, and sessions that are kept here. Both end with their time.
//!
//! A ticket under given keys is what RFC 5077 §4 recommends: the name of the key, a random vector, the state (AES-256, CBC), and an
//! HMAC-SHA-256 over all of it. The context of the server is part of the HMAC: a ticket is good for servers that ask the same of
//! their clients, and for no other one with the same keys.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use super::TlsError;

/// The bytes of a key: its name (16), the key of the HMAC (32), the key of the cipher (32).
const KEY: usize = 80;
const NAME: usize = 16;
const VECTOR: usize = 16;
const TAG: usize = 32;
/// The time of issue in front of a state, in seconds.
const TIME: usize = 8;

/// A key for tickets.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey([u8; KEY]);

impl TicketKey {
    /// Reads a key.
    ///
    /// # Errors
    /// When it does not have 80 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, TlsError> {
        bytes.try_into().map(Self).map_err(|_| TlsError::TicketKey(bytes.len()))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

/// The tickets that a server gives.
#[derive(Debug, Clone, Default)]
pub enum Tickets {
    /// Those under a key that the server makes itself.
    #[default]
    OwnKey,
    /// None.
    None,
    /// Those under the first of these keys; those under any other are still good.
    Keys(Vec<TicketKey>),
}

impl Tickets {
    /// Returns what makes and reads tickets; `None` when none are given.
    pub(super) fn producer(&self, context: &[u8; 32], lifetime: Duration) -> Option<Arc<dyn ProducesTickets>> {
        let inner = match self {
            Self::OwnKey => Ticketer::new().ok()?,
            Self::None => return None,
            Self::Keys(keys) => {
                let keys: Option<Vec<Sealer>> = keys.iter().map(|key| Sealer::new(key, context)).collect();
                Arc::new(Sealers(keys.filter(|keys| !keys.is_empty())?))
            }
        };
        Some(Arc::new(Timed { inner, lifetime }))
    }
}

/// Something whose states have a time.
#[derive(Debug)]
struct Timed<T> {
    inner: T,
    lifetime: Duration,
}

impl<T> Timed<T> {
    fn stamped(state: &[u8]) -> Vec<u8> {
        [&now().to_be_bytes(), state].concat()
    }

    /// Returns the state unless its time is over.
    fn fresh(&self, stamped: &[u8]) -> Option<Vec<u8>> {
        let (time, state) = stamped.split_first_chunk::<TIME>()?;
        let age = now().checked_sub(u64::from_be_bytes(*time))?;
        (age < self.lifetime.as_secs()).then(|| state.to_vec())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl ProducesTickets for Timed<Arc<dyn ProducesTickets>> {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&Self::stamped(state))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.decrypt(ticket)?)
    }
}

/// Sessions that are kept here, the latest ones.
pub(super) fn kept(most: usize, lifetime: Duration) -> Arc<dyn StoresServerSessions> {
    Arc::new(Timed { inner: ServerSessionMemoryCache::new(most), lifetime })
}

impl StoresServerSessions for Timed<Arc<ServerSessionMemoryCache>> {
    fn put(&self, key: Vec<u8>, state: Vec<u8>) -> bool {
        self.inner.put(key, Self::stamped(&state))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.fresh(&self.inner.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

/// A key that is ready for use.
#[derive(Debug)]
struct Sealer {
    name: [u8; NAME],
    mac: hmac::Key,
    seal: PaddedBlockEncryptingKey,
    open: PaddedBlockDecryptingKey,
    context: [u8; 32],
}

impl Sealer {
    fn new(TicketKey(bytes): &TicketKey, context: &[u8; 32]) -> Option<Self> {
        let (name, keys) = bytes.split_first_chunk::<NAME>()?;
        let (mac, cipher) = keys.split_at(32);
        let cipher = || UnboundCipherKey::new(&AES_256, cipher).ok();
        Some(Self {
            name: *name,
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            seal: PaddedBlockEncryptingKey::cbc_pkcs7(cipher()?).ok()?,
            open: PaddedBlockDecryptingKey::cbc_pkcs7(cipher()?).ok()?,
            context: *context,
        })
    }

    /// What the tag is over: the context, and the ticket without the tag.
    fn signed(&self, ticket: &[u8]) -> Vec<u8> {
        [&self.context, ticket].concat()
    }

    fn seal(&self, state: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = state.to_vec();
        let vector = self.seal.encrypt(&mut sealed).ok()?;
        let vector: &[u8] = (&vector).try_into().ok()?;
        let mut ticket = [&self.name, vector, &sealed].concat();
        let tag = hmac::sign(&self.mac, &self.signed(&ticket));
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (signed, tag) = ticket.split_last_chunk::<TAG>()?;
        hmac::verify(&self.mac, &self.signed(signed), tag).ok()?;
        let (vector, sealed) = signed.get(NAME..)?.split_first_chunk::<VECTOR>()?;
        let mut state = sealed.to_vec();
        let vector = DecryptionContext::Iv128(FixedLength::from(vector));
        self.open.decrypt(&mut state, vector).ok().map(|state| state.to_vec())
    }
}

/// Keys in use: the first makes tickets, every one reads its own.
#[derive(Debug)]
struct Sealers(Vec<Sealer>);

impl ProducesTickets for Sealers {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.0.first()?.seal(state)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.iter().find(|key| ticket.starts_with(&key.name))?.open(ticket)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn key(first: u8) -> TicketKey {
        let mut bytes = [7; KEY];
        bytes[0] = first;
        TicketKey(bytes)
    }

    fn producer(keys: &[TicketKey], context: u8, seconds: u64) -> Arc<dyn ProducesTickets> {
        Tickets::Keys(keys.to_vec()).producer(&[context; 32], Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn tickets_are_good_for_the_same_keys_context_and_time() {
        let ticket = producer(&[key(1)], 0, 60).encrypt(b"state").unwrap();
        assert_eq!(producer(&[key(2), key(1)], 0, 60).decrypt(&ticket).unwrap(), b"state", "an older key");
        assert_eq!(producer(&[key(2)], 0, 60).decrypt(&ticket), None, "another key");
        assert_eq!(producer(&[key(1)], 1, 60).decrypt(&ticket), None, "another context");
        assert_eq!(producer(&[key(1)], 0, 0).decrypt(&ticket), None, "its time is over");
        for place in 0..ticket.len() {
            let mut other = ticket.clone();
            other[place] ^= 1;
            assert_eq!(producer(&[key(1)], 0, 60).decrypt(&other), None, "byte {place} is another");
            assert_eq!(producer(&[key(1)], 0, 60).decrypt(&ticket[..place]), None, "{place} bytes");
        }
    }

    #[test]
    fn a_key_has_eighty_bytes_and_is_not_shown() {
        assert_eq!(TicketKey::new(&[0; 79]), Err(TlsError::TicketKey(79)));
        assert_eq!(format!("{:?}", TicketKey::new(&[65; 80]).unwrap()), "TicketKey");
    }

    #[test]
    fn kept_sessions_end_with_their_time() {
        for (seconds, found) in [(60, Some(b"state".to_vec())), (0, None)] {
            let sessions = kept(8, Duration::from_secs(seconds));
            assert!(sessions.put(b"key".to_vec(), b"state".to_vec()));
            assert_eq!(sessions.get(b"key"), found);
            assert_eq!(sessions.take(b"key"), found);
            assert_eq!(sessions.take(b"key"), None, "taken once");
        }
    }
}
