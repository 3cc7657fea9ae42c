"""The coordinator's side: hosts the rendezvous, starts peers and watches them. No mathematics."""
