//! Keeps a command's mount namespace beyond its end: the child sends rbuild a descriptor of it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use rustix::thread::LinkNameSpaceType;

use super::spec::KeptMounts;
use super::{pivot, sys};

/// Returns a socket pair for the descriptor: rbuild's end, then the child's.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

/// Opens the mount namespace of this process; must be called while `/proc` is the host's. Allocates
/// nothing.
pub(super) fn own_namespace() -> Result<OwnedFd> {
    rustix::fs::open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Sends `namespace` to rbuild (unix(7), `SCM_RIGHTS`). Only for a namespace without any mount of
/// the host. Allocates nothing.
pub(super) fn send(to: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<()> {
    sys::send::descriptor(to, namespace)
}

/// Moves the calling process into the kept namespace (setns(2)). Its root directory becomes that of
/// the namespace, which the first child never left, and must be `root`. Allocates nothing.
pub(super) fn join(kept: &KeptMounts, root: BorrowedFd<'_>) -> Result<()> {
    let namespace = kept.namespace.as_fd();
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    pivot::is_only_root(root)
}

/// Waits for a descriptor that [`send`] sent; `None` if all other ends were closed instead.
pub(super) fn receive_descriptor(from: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| receive_with(from, flags)).ok().flatten()
}

/// Receives the namespace once the child has executed its command or ended; `None` if the child
/// failed before sending it.
pub(super) fn receive(from: BorrowedFd<'_>) -> Option<KeptMounts> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    receive_with(from, flags).ok().flatten().map(|namespace| KeptMounts { namespace })
}

fn receive_with(from: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut word)], &mut message, flags)?;
    Ok(message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    }))
}
