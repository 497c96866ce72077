"""The report of `bench report`: one HTML file that holds all it shows, and the same in Markdown."""
