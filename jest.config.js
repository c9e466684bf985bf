// Tests run on what tsc emitted: the code that ships, as native ES modules, without a transform.
export default {
  testEnvironment: "node",
  roots: ["<rootDir>/build/test"],
  testMatch: ["**/*.test.js"],
  transform: {},
  coverageProvider: "v8",
  testTimeout: 120_000,
  // Most of the time goes into programs that the tests start and wait for: a worker for each core, not one less.
  maxWorkers: "100%",
  globalSetup: "<rootDir>/test/support/run-folder.js",
  reporters: ["default", "<rootDir>/test/support/summary-reporter.js"],
};
