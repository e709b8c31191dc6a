//! `hearth ca`: what the local authority is, its certificate as a file, and how to trust it.

use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::Session;
use super::args::{CaCommand, CaTarget};
use super::client::garbled;
use super::exit::{Exit, Failure};
use super::output::{Done, printable};
use super::schedules::list;
use crate::tls::authority::Authority;

/// Where every node serves the certificate of its authority, to everybody.
const PATH: &str = "/api/v1/ca";
/// How the file is called in what people are told to do.
const FILE: &str = "hearth-ca.pem";

/// What to do on each kind of device, once the file is there. `FILE` stands for its name.
const GUIDES: [(CaTarget, &str, &str); 8] = [
    (
        CaTarget::Android,
        "Android",
        "1. Open the address above in the browser, go on in spite of the warning, and let it save the file.\n\
         2. Settings > Security & privacy > More security > Encryption & credentials > Install a certificate >\n   \
            CA certificate > Install anyway, and choose the file. (Makers name these pages differently: search the\n   \
            settings for \"CA certificate\".)\n\
         3. Firefox has a switch of its own: Settings > About Firefox, tap the logo five times, then\n   \
            Settings > Secret Settings > Use third party CA certificates.",
    ),
    (
        CaTarget::Ios,
        "iPhone and iPad",
        "1. Open the address above in Safari, go on in spite of the warning, and allow the download of the profile.\n\
         2. Settings > General > VPN & Device Management > the profile > Install. Compare the fingerprint there under\n   \
            More Details.\n\
         3. Settings > General > About > Certificate Trust Settings: switch the authority on.",
    ),
    (
        CaTarget::Windows,
        "Windows (Edge, Chrome)",
        "In a terminal, for your own user:\n\n  certutil -user -addstore Root FILE\n\n\
         It shows the fingerprint and asks. To undo it: certmgr.msc > Trusted Root Certification Authorities.",
    ),
    (
        CaTarget::Macos,
        "macOS (Safari, Chrome)",
        "In a terminal, for your own user:\n\n  \
         security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db FILE\n\n\
         To undo it: security remove-trusted-cert FILE",
    ),
    (
        CaTarget::Debian,
        "Debian, Ubuntu, Raspberry Pi OS (curl, Python and other programs)",
        "  sudo cp FILE /usr/local/share/ca-certificates/hearth-ca.crt\n  sudo update-ca-certificates\n\n\
         To undo it: remove that file, then sudo update-ca-certificates --fresh",
    ),
    (
        CaTarget::Fedora,
        "Fedora and its relatives (curl, Python and other programs)",
        "  sudo cp FILE /etc/pki/ca-trust/source/anchors/\n  sudo update-ca-trust\n\n\
         To undo it: remove that file, then sudo update-ca-trust",
    ),
    (
        CaTarget::Firefox,
        "Firefox on a computer",
        "1. Settings > Privacy & Security > Certificates > View Certificates > Authorities > Import, and choose FILE.\n\
         2. View shows the fingerprint; then tick \"Trust this CA to identify websites\".",
    ),
    (
        CaTarget::Chromium,
        "Chromium and Chrome on Linux",
        "Settings > Privacy and security > Security > Manage certificates > Authorities (newer ones: Local certificates >\n\
         Custom > Trusted certificates) > Import. Or in a terminal, with the package libnss3-tools:\n\n  \
         certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n Hearth -i FILE",
    ),
];

impl Session {
    pub(super) async fn ca(&self, command: Option<&CaCommand>) -> Done<Exit> {
        match command {
            None | Some(CaCommand::Show) => self.ca_show().await,
            Some(CaCommand::Export { file, out, der }) => {
                self.ca_export(file.as_deref().or(out.as_deref()), *der).await
            }
            Some(CaCommand::Trust { on }) => self.ca_trust(*on).await,
        }
    }

    async fn ca_show(&self) -> Done<Exit> {
        let (authority, urls) = (read(&self.ca_pem().await?)?, self.ca_urls().await?);
        let document = json!({
            "subject": authority.subject,
            "fingerprint_sha256": authority.fingerprint,
            "not_before": moment(authority.validity.0),
            "not_after": moment(authority.validity.1),
            "permitted": authority.permitted,
            "excluded": authority.excluded,
            "urls": urls,
        });
        self.out.either(&document, || printable(&shown(&authority, &urls)))?;
        Ok(Exit::Ok)
    }

    async fn ca_export(&self, to: Option<&Path>, der: bool) -> Done<Exit> {
        let pem = self.ca_pem().await?;
        let bytes = if der { Bytes::from(to_der(&pem)?) } else { pem };
        let Some(to) = to else {
            match (self.out.json, der) {
                (true, true) => self.out.document(&json!({"der": data_encoding::BASE64.encode(&bytes)}))?,
                (true, false) => self.out.document(&json!({"pem": String::from_utf8_lossy(&bytes)}))?,
                (false, _) => self.out.raw(&bytes)?,
            }
            return Ok(Exit::Ok);
        };
        std::fs::write(to, &bytes).map_err(|error| {
            let detail = format!("{} cannot be written: {error}", to.display());
            Failure::new(Exit::Failure, detail, "give another FILE, or none for stdout")
        })?;
        self.out.note(format!(
            "{} holds the CA; clients that trust it can speak to every API of it",
            to.display()
        ));
        if self.out.json {
            self.out.document(&json!({"file": to.to_string_lossy()}))?;
        }
        Ok(Exit::Ok)
    }

    async fn ca_trust(&self, on: Option<CaTarget>) -> Done<Exit> {
        let (authority, urls) = (read(&self.ca_pem().await?)?, self.ca_urls().await?);
        let guides: Vec<(&str, String)> = guides(on).collect();
        let steps: serde_json::Map<String, Value> =
            guides.iter().map(|(title, steps)| ((*title).to_owned(), json!(steps))).collect();
        let document = json!({"urls": urls, "fingerprint_sha256": authority.fingerprint, "steps": steps});
        self.out.either(&document, || printable(&how_to_trust(&authority, &urls, &guides)))?;
        Ok(Exit::Ok)
    }

    async fn ca_pem(&self) -> Done<Bytes> {
        Ok(self.client.bytes(Method::GET, PATH, None).await?)
    }

    /// Where the certificate can be fetched from.
    async fn ca_urls(&self) -> Done<Vec<String>> {
        let status = self.client.get("/api/v1/status").await?;
        let bases = list(&status, "api").iter().filter_map(Value::as_str);
        Ok(bases.map(|base| format!("{base}{PATH}")).collect())
    }
}

fn read(pem: &[u8]) -> Result<Authority, Failure> {
    Authority::from_pem(pem).map_err(|error| garbled(format!("its CA is no certificate: {error}")))
}

fn to_der(pem: &[u8]) -> Result<Vec<u8>, Failure> {
    let der = CertificateDer::from_pem_slice(pem);
    Ok(der.map_err(|error| garbled(format!("its CA is not PEM: {error}")))?.to_vec())
}

fn moment(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn shown(authority: &Authority, urls: &[String]) -> String {
    let mut lines = vec![
        format!("subject      {}", authority.subject),
        format!("SHA-256      {}", authority.fingerprint),
        format!("valid        {} to {}", moment(authority.validity.0), moment(authority.validity.1)),
        format!("may vouch    {}", authority.permitted.join(", ")),
    ];
    if !authority.excluded.is_empty() {
        lines.push(format!("but not      {}", authority.excluded.join(", ")));
    }
    lines.extend(urls.iter().map(|url| format!("served at    {url}")));
    lines.push("how to trust hearth ca trust".to_owned());
    lines.join("\n")
}

fn guides(on: Option<CaTarget>) -> impl Iterator<Item = (&'static str, String)> {
    let wanted = GUIDES.iter().filter(move |(target, ..)| on.is_none_or(|on| on == *target));
    wanted.map(|(_, title, steps)| (*title, steps.replace("FILE", FILE)))
}

fn how_to_trust(authority: &Authority, urls: &[String], guides: &[(&str, String)]) -> String {
    let from = urls.first().map_or("any address of this node", String::as_str);
    let mut text = format!(
        "{} can vouch for names and addresses of a home alone ({} and the like), so a thief\n\
         could do nothing elsewhere with its key.\n\n\
         Get the file: `hearth ca export {FILE}` on the board, or from\n\n  {}\n\n\
         Nothing vouches for it there yet, so the browser warns. Compare its SHA-256 fingerprint before you trust it:\n\n  \
         {}\n\n\
         `openssl x509 -in {FILE} -noout -fingerprint -sha256` shows that of a file.",
        authority.subject,
        authority.permitted.first().map_or(".local", String::as_str),
        if urls.len() > 1 { urls.join("\n  ") } else { from.to_owned() },
        authority.fingerprint,
    );
    for (title, steps) in guides {
        text.push_str(&format!("\n\n{title}\n{}\n{steps}", "-".repeat(title.chars().count())));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::LocalCa;

    fn authority() -> Authority {
        read(LocalCa::generate("kitchen").unwrap().ca_pem().as_bytes()).unwrap()
    }

    #[test]
    fn it_shows_what_to_compare_and_where_it_is() {
        let (authority, urls) = (authority(), ["https://192.168.1.5:7843/api/v1/ca".to_owned()]);
        let text = shown(&authority, &urls);
        for part in [
            &authority.fingerprint,
            &urls[0],
            "1970-01-01T00:00:00Z to 2099-12-31",
            "192.168.0.0/16",
            ".kitchen",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn each_device_has_its_steps_with_address_and_fingerprint() {
        let (authority, urls) = (authority(), ["https://192.168.1.5:7843/api/v1/ca".to_owned()]);
        let all = how_to_trust(&authority, &urls, &guides(None).collect::<Vec<_>>());
        assert!(all.contains(&authority.fingerprint) && all.contains(&urls[0]));
        for (_, title, _) in GUIDES {
            assert!(all.contains(title), "{title}");
        }
        assert!(!all.contains("FILE"), "{all}");
        let one: Vec<_> = guides(Some(CaTarget::Debian)).collect();
        assert!(one.len() == 1 && one.iter().any(|(_, steps)| steps.contains("cp hearth-ca.pem ")));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(read(b"nonsense").is_err() && to_der(b"nonsense").is_err());
    }
}
