"""What a run leaves: its folder, the model file, the model card, exports."""
