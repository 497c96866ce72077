"""What stands in for fvcore where `make gpu` finds none and may install nothing."""
