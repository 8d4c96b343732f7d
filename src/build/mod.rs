//! The driver: walks the plan's graph; the only place where IO rooms meet.
