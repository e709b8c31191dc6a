//! Who may take part.
