"""Networks genkit owns; diffusers' own model classes come first."""
