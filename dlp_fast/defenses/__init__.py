"""The paper's rivals behind one interface: a Setting in, a network out. None of them sees a test set or a trigger."""
