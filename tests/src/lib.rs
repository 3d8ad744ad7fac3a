//! Checks of the whole: floors, words, generated references, crashes, hostile plugins.
