//! How a command's mount namespace outlives it: the child passes rbuild a descriptor of it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::thread::LinkNameSpaceType;

use super::pivot;
use super::spec::Kept;

/// The two ends between which the namespace is passed: rbuild's and the child's.
pub(super) fn ends() -> Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

/// The mount namespace of this process, as long as `/proc` is the host's. Allocates nothing.
pub(super) fn own_namespace() -> Result<OwnedFd> {
    rustix::fs::open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The child's part, when nothing of the host is left in `namespace`. Allocates nothing.
pub(super) fn hand_over(to: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<()> {
    let descriptors = [namespace];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(to, &[IoSlice::new(b".")], &mut message, SendFlags::empty()).map(drop)
}

/// The other child's part: from here on it sees what the first one left. Its root is that of the
/// namespace, which nobody leaves, and must be `root`. Allocates nothing.
pub(super) fn join(kept: &Kept, root: BorrowedFd<'_>) -> Result<()> {
    let namespace = kept.namespace.as_fd();
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    pivot::is_only_root(root)
}

/// rbuild's part, when the child has executed its command or ended. Nothing, if it did not come so
/// far.
pub(super) fn receive(from: BorrowedFd<'_>) -> Option<Kept> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut word)], &mut message, flags).ok()?;
    message.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => {
            descriptors.next().map(|namespace| Kept { namespace })
        }
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    })
}
