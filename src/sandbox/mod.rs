//! Runs one command in one rootfs; knows nothing of Dockerfiles or images.
