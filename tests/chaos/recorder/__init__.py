"""The recorder: many clients that talk over a stack, and write down what they see."""
