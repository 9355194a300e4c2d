//! Certificates for tests: a folder of files, made anew every time, with fixed names, serial numbers and dates.
//!
//! Of every certificate NAME there are `NAME.pem` (it and the intermediates above it), `NAME.key`, `NAME.sha256` (of the
//! certificate, in hex; also `NAME.sha256-capitals` and `NAME.sha256-colons`) and `NAME.spki` (SHA-256 of the public key, in
//! Base64). `ca.pem` and `other-ca.pem` are roots, `intermediate.pem` and `lower.pem` authorities below `ca`; `both-ca.pem`
//! has both roots. `crl.pem` is the list of `ca`, which revokes `revoked`; `crl-intermediate.pem` is that of `intermediate`,
//! which revokes `deep-revoked`; `crl-chain.pem` has both; `crl-old.pem` is one that should have been renewed long ago.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, OtherNameValue, PublicKeyData as _,
    RevocationReason, RevokedCertParams, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A folder of certificates, removed when dropped.
pub struct Certificates {
    folder: TempDir,
}

/// Who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What holders of its certificates send with them.
    chain: String,
}

/// What a certificate is made from.
struct Plan<'a> {
    name: &'a str,
    /// `dns:`, `uri:`, `ip:`, `email:` or `upn:` and the value, each.
    names: &'a [&'a str],
    params: CertificateParams,
    key: KeyPair,
}

/// The names of the certificates that `ca` issues, with what stands in their subject alternative names.
const ISSUED: [(&str, &[&str]); 16] = [
    (
        "server",
        &["dns:test.local", "dns:*.wild.local", "ip:127.0.0.1", "uri:spiffe://cluster.local/ns/default/sa/server"],
    ),
    ("one", &["dns:one.local"]),
    ("two", &["dns:two.local"]),
    ("wild", &["dns:*.wild.local"]),
    ("deep-wild", &["dns:*.deep.wild.local"]),
    ("exact-wild", &["dns:x.wild.local"]),
    ("nameless", &[]),
    ("client", &["uri:spiffe://cluster.local/ns/default/sa/client", "dns:client.local"]),
    ("other-client", &["uri:spiffe://cluster.local/ns/other/sa/client", "dns:other.client.local"]),
    ("revoked", &["uri:spiffe://cluster.local/ns/default/sa/revoked", "dns:test.local"]),
    ("dns-only", &["dns:only.client.local", "dns:second.client.local"]),
    ("email-only", &["email:someone@client.local"]),
    ("ip-only", &["ip:127.0.0.9", "ip:fd00::9"]),
    ("upn-only", &["upn:someone@upn.local"]),
    ("wild-client", &["dns:*.client.local"]),
    (
        "many",
        &[
            "uri:spiffe://cluster.local/ns/many/sa/one",
            "uri:https://many.local/two;x=1,y=2",
            "dns:many.local",
            "dns:more.local",
            "ip:10.0.0.1",
            "ip:fd00::1",
            "email:many@client.local",
        ],
    ),
];

impl Certificates {
    /// Makes them all.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn make() -> anyhow::Result<Self> {
        let made = Self { folder: tempfile::Builder::new().prefix("serin-certificates-").tempdir()? };
        let ca = made.root("ca", "Serin Test CA")?;
        let other = made.root("other-ca", "Another CA")?;
        let roots = [made.read("ca.pem")?, made.read("other-ca.pem")?].concat();
        std::fs::write(made.path("both-ca.pem"), roots)?;
        for (name, names) in ISSUED {
            made.issue(&ca, plan(name, names)?)?;
        }
        made.special(&ca, &other)?;
        made.below(&ca)?;
        Ok(made)
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The text of a file.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.path(file)).with_context(|| format!("no file '{file}' of certificates"))
    }

    /// A certificate and the intermediates above it.
    ///
    /// # Errors
    /// When there is no such certificate.
    pub fn chain(&self, name: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let file = self.path(&format!("{name}.pem"));
        let read = CertificateDer::pem_file_iter(&file).with_context(|| format!("no certificate '{name}'"))?;
        Ok(read.collect::<Result<_, _>>()?)
    }

    /// The key of a certificate.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn key(&self, name: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).with_context(|| format!("no key '{name}'"))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn root(&self, name: &str, subject: &str) -> anyhow::Result<Authority> {
        let (params, key) = (authority(subject), KeyPair::generate()?);
        let made = params.self_signed(&key)?;
        self.write(name, &made, &key, "")?;
        Ok(Authority { issuer: Issuer::new(params, key), chain: String::new() })
    }

    fn lower(&self, above: &Authority, name: &str, subject: &str) -> anyhow::Result<Authority> {
        let (mut params, key) = (authority(subject), KeyPair::generate()?);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(name));
        let made = params.signed_by(&key, &above.issuer)?;
        self.write(name, &made, &key, &above.chain)?;
        let chain = format!("{}{}", made.pem(), above.chain);
        Ok(Authority { issuer: Issuer::new(params, key), chain })
    }

    fn issue(&self, by: &Authority, plan: Plan<'_>) -> anyhow::Result<()> {
        let Plan { name, names, mut params, key } = plan;
        params.subject_alt_names = names.iter().map(|n| alternative(n)).collect::<Result<_, _>>()?;
        let made = params.signed_by(&key, &by.issuer)?;
        self.write(name, &made, &key, &by.chain)
    }

    fn write(&self, name: &str, made: &Certificate, key: &KeyPair, above: &str) -> anyhow::Result<()> {
        let hash: String = Sha256::digest(made.der()).iter().map(|b| format!("{b:02x}")).collect();
        let public = Sha256::digest(key.subject_public_key_info());
        let public = base64::engine::general_purpose::STANDARD.encode(public);
        std::fs::write(self.path(&format!("{name}.pem")), format!("{}{above}", made.pem()))?;
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        let pairs: Vec<&str> = hash.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
        std::fs::write(self.path(&format!("{name}.sha256-colons")), pairs.join(":"))?;
        std::fs::write(self.path(&format!("{name}.sha256-capitals")), hash.to_ascii_uppercase())?;
        std::fs::write(self.path(&format!("{name}.sha256")), hash)?;
        std::fs::write(self.path(&format!("{name}.spki")), public)?;
        Ok(())
    }

    /// Those with something unusual, and the lists of revoked ones.
    fn special(&self, ca: &Authority, other: &Authority) -> anyhow::Result<()> {
        let mut rsa = plan("rsa", &["dns:test.local", "dns:rsa.local"])?;
        rsa.key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        self.issue(ca, rsa)?;
        let mut p384 = plan("p384", &["dns:test.local", "dns:p384.local"])?;
        p384.key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?;
        self.issue(ca, p384)?;
        let mut ed25519 = plan("ed25519", &["dns:test.local"])?;
        ed25519.key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        self.issue(ca, ed25519)?;
        let own = ["dns:test.local", "uri:spiffe://cluster.local/ns/default/sa/client"];
        self.issue(other, plan("from-other-ca", &own)?)?;
        let mut expired = plan("expired", &own)?;
        (expired.params.not_before, expired.params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.issue(ca, expired)?;
        let mut future = plan("future", &own)?;
        future.params.not_before = date_time_ymd(2043, 1, 1);
        self.issue(ca, future)?;
        for (name, usage) in
            [("server-only", ExtendedKeyUsagePurpose::ServerAuth), ("client-only", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let mut limited = plan(name, &own)?;
            limited.params.extended_key_usages = vec![usage];
            self.issue(ca, limited)?;
        }
        let mut quoted = plan("quoted", &["uri:spiffe://cluster.local/ns/default/sa/quoted"])?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CountryName, "DE");
        subject.push(DnType::OrganizationName, "Some, Others & \"Co\"; Ltd=1");
        subject.push(DnType::OrganizationalUnitName, "A+B");
        subject.push(DnType::CommonName, "quoted\\name");
        quoted.params.distinguished_name = subject;
        self.issue(ca, quoted)?;
        let alone = plan("self-signed", &own)?;
        let made = alone.params.self_signed(&alone.key)?;
        self.write("self-signed", &made, &alone.key, "")?;
        let list = revocations(&[serial("revoked")]).signed_by(&ca.issuer)?.pem()?;
        std::fs::write(self.path("crl.pem"), list)?;
        let mut old = revocations(&[]);
        old.next_update = date_time_ymd(2024, 6, 1);
        std::fs::write(self.path("crl-old.pem"), old.signed_by(&ca.issuer)?.pem()?)?;
        Ok(())
    }

    /// Those below intermediates: `deep` (one), `deeper` (two), `lone` (one, which it does not send).
    fn below(&self, ca: &Authority) -> anyhow::Result<()> {
        let intermediate = self.lower(ca, "intermediate", "Serin Test Intermediate")?;
        let lower = self.lower(&intermediate, "lower", "Serin Test Lower Intermediate")?;
        let own = ["dns:test.local", "uri:spiffe://cluster.local/ns/default/sa/deep"];
        self.issue(&intermediate, plan("deep", &own)?)?;
        self.issue(&intermediate, plan("deep-revoked", &own)?)?;
        self.issue(&lower, plan("deeper", &own)?)?;
        let list = revocations(&[serial("deep-revoked")]).signed_by(&intermediate.issuer)?.pem()?;
        std::fs::write(self.path("crl-chain.pem"), [self.read("crl.pem")?, list.clone()].concat())?;
        std::fs::write(self.path("crl-intermediate.pem"), list)?;
        let silent = Authority { issuer: intermediate.issuer, chain: String::new() };
        self.issue(&silent, plan("lone", &own)?)
    }
}

/// A certificate of both usages with the organisation `Serin Tests` and its name as the common name.
fn plan<'a>(name: &'a str, names: &'a [&'a str]) -> anyhow::Result<Plan<'a>> {
    let mut params = dated(name);
    params.serial_number = Some(serial(name));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(Plan { name, names, params, key: KeyPair::generate()? })
}

fn authority(subject: &str) -> CertificateParams {
    let mut params = dated(subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial(subject));
    params
}

fn dated(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Serin Tests");
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params
}

fn revocations(revoked: &[SerialNumber]) -> CertificateRevocationListParams {
    let entry = |number: &SerialNumber| RevokedCertParams {
        serial_number: number.clone(),
        revocation_time: date_time_ymd(2024, 2, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 2, 1),
        next_update: date_time_ymd(2044, 1, 1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// The same for the same name, always.
fn serial(name: &str) -> SerialNumber {
    let digest = Sha256::digest(name);
    let mut bytes = digest.get(..8).unwrap_or_default().to_vec();
    // Not negative, and without a zero in front.
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x3f | 0x10;
    }
    SerialNumber::from_slice(&bytes)
}

fn alternative(text: &str) -> anyhow::Result<SanType> {
    let (kind, value) = text.split_once(':').context("a name without a kind")?;
    Ok(match kind {
        "uri" => SanType::URI(value.try_into()?),
        "ip" => SanType::IpAddress(value.parse()?),
        "email" => SanType::Rfc822Name(value.try_into()?),
        "upn" => SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], OtherNameValue::Utf8String(value.into()))),
        _ => SanType::DnsName(value.try_into()?),
    })
}
