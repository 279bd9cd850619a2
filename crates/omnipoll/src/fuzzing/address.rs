//! Addresses: whatever the text, reading it is an answer; what was read is shown as it can be read again.

use crate::net::ListenAddress;
use crate::sys::Address;

/// Reads the bytes as the address of a server.
pub fn address(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<ListenAddress>() {
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            assert!(!crate::explain(&error).is_empty());
        }
        Ok(ListenAddress::Unix(name)) => {
            let shown = name.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
            let is_plain = text.chars().all(|c| c.is_ascii_graphic() && c != '\\');
            assert!(!is_plain || shown == text, "{shown:?} is not {text:?}");
        }
        Ok(_) => {}
    }
    let shown = Address::unix(data).to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
}
