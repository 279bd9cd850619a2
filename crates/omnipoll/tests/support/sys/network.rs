//! A network of this process alone, which it may configure.

use std::fs;
use std::os::fd::AsRawFd;

use super::check;

/// Moves this process, which has one thread, to a network of its own that has a loopback interface and those
/// ports to connect from. False where that is forbidden, which is printed.
pub(crate) fn own_network(ports: &str) -> bool {
    // SAFETY: takes no pointer.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    // SAFETY: takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
        println!("this process may have no network of its own");
        return false;
    }
    // In the other order it is not permitted, user_namespaces(7).
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).expect("uid_map");
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).expect("gid_map");
    bring_up_loopback();
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).expect("ip_local_port_range");
    true
}

fn bring_up_loopback() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("socket");
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }, "SIOCSIFFLAGS");
}
