"""What people look at: plots of training and of audio."""
