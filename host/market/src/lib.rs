//! Plugin packages: manifest, lockfile, install, removal.
