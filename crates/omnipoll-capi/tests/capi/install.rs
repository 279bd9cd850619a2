//! What `make install` leaves behind.
